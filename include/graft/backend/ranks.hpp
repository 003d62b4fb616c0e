// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which process of a run this one is, as the program that started it says: torchrun, mpirun or srun. All of them set
// environment variables, so that no MPI library is needed.

#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>

#include <graft/core/error.hpp>

namespace graft {

// One process is rank 0 of 1.
//
// Variables, in the order in which they are looked for:
//   torchrun   RANK, WORLD_SIZE, LOCAL_RANK                 (also by hand, with MASTER_ADDR and MASTER_PORT)
//   openmpi    OMPI_COMM_WORLD_RANK, _SIZE, _LOCAL_RANK     mpirun of Open MPI
//   pmi        PMI_RANK, PMI_SIZE, MPI_LOCALRANKID          mpirun of MPICH and Intel MPI
//   slurm      SLURM_PROCID, SLURM_STEP_NUM_TASKS or SLURM_NTASKS, SLURM_LOCALID     srun
// Launchers nest: torchrun or mpirun often run inside a Slurm job, whose variables then name another thing. So Slurm
// counts only where none of the others is set, and only within a step: what a batch script itself runs is one rank.
// The others must agree where several are set. GRAFT_LAUNCHER names the one that counts, or none for one rank.
//
// Address of rank 0: MASTER_ADDR; this machine, where mpirun says that all ranks are on it; the first node of
// SLURM_STEP_NODELIST or SLURM_JOB_NODELIST, which has rank 0 unless the distribution says otherwise;
// SLURM_LAUNCH_NODE_IPADDR, which may be a login node. Port: GRAFT_MASTER_PORT; MASTER_PORT + 1, since torchrun's own
// store listens at MASTER_PORT itself; one that follows from SLURM_JOB_ID; 29501. One rank needs neither.
struct launch_ranks {
  int rank = 0;        // in [0, size)
  int local_rank = 0;  // among those of this machine: the number of its device
  int size = 1;
  std::string launcher = "none";
  std::string address;  // of rank 0; empty with one rank
  int port = 0;

  // The value of a variable, nullptr where it is not set.
  using lookup = std::function<const char*(const char*)>;

  // Errors: one sentence for a value that is no number, a variable without those that belong to it, a rank that is not
  // below the size, launchers that disagree, no address.
  static launch_ranks from_environment(const lookup& variable = [](const char* name) { return std::getenv(name); });
};

namespace detail {

struct launcher_variables {
  const char *name, *rank, *size, *local_rank;
};
inline constexpr launcher_variables torchrun_variables{"torchrun", "RANK", "WORLD_SIZE", "LOCAL_RANK"};
inline constexpr launcher_variables openmpi_variables{"openmpi", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
                                                      "OMPI_COMM_WORLD_LOCAL_RANK"};
inline constexpr launcher_variables pmi_variables{"pmi", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"};
inline constexpr launcher_variables slurm_variables{"slurm", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"};

// The name of the first node of a list in Slurm's form: "gpu03" of "gpu[03-07,11],fat1".
inline std::string first_node(std::string_view list) {
  std::string name;
  bool in_brackets = false, taken = false;  // taken: the first item of these brackets is complete
  for (const char c : list) {
    if (c == '[') {
      in_brackets = true;
      taken = false;
    } else if (c == ']') {
      in_brackets = false;
    } else if (c == ',' && !in_brackets) {
      break;
    } else if (in_brackets && (c == ',' || c == '-')) {
      taken = true;
    } else if (!in_brackets || !taken) {
      name += c;
    }
  }
  return name;
}

class launch_reader {
 public:
  explicit launch_reader(const launch_ranks::lookup& variable) : variable_(variable) {}

  launch_ranks read() const {
    launch_ranks found = ranks();
    if (found.size == 1) return found;
    found.address = address(found);
    found.port = port();
    return found;
  }

 private:
  std::optional<std::string> text(const char* name) const {
    const char* const value = variable_(name);
    return value == nullptr ? std::nullopt : std::optional<std::string>(value);
  }
  // Errors: a value that is no whole number from `least` to `most`.
  std::optional<std::int64_t> number(const char* name, std::int64_t least, std::int64_t most) const {
    const std::optional<std::string> value = text(name);
    if (!value) return std::nullopt;
    std::int64_t parsed = 0;
    const auto [end, status] = std::from_chars(value->data(), value->data() + value->size(), parsed);
    GRAFT_CHECK(status == std::errc() && end == value->data() + value->size() && least <= parsed && parsed <= most,
                "launch_ranks: expected ", name, " to be a whole number from ", least, " to ", most, ", got '", *value,
                "'");
    return parsed;
  }

  launch_ranks ranks() const {
    if (const auto wanted = text("GRAFT_LAUNCHER")) {
      if (*wanted == "none") return {};
      for (const launcher_variables& each : {torchrun_variables, openmpi_variables, pmi_variables, slurm_variables})
        if (*wanted == each.name) {
          const auto found = ranks_of(each);
          GRAFT_CHECK(found, "launch_ranks: expected ", each.rank, " and its like for GRAFT_LAUNCHER=", *wanted,
                      ", got none of them");
          return *found;
        }
      raise("launch_ranks: expected GRAFT_LAUNCHER to be torchrun, openmpi, pmi, slurm or none, got '", *wanted, "'");
    }
    std::optional<launch_ranks> first;
    for (const launcher_variables& each : {torchrun_variables, openmpi_variables, pmi_variables}) {
      const auto found = ranks_of(each);
      if (!found) continue;
      if (!first) first = found;
      GRAFT_CHECK(found->rank == first->rank && found->size == first->size, "launch_ranks: expected ", first->launcher,
                  " and ", found->launcher, " to agree, got rank ", first->rank, " of ", first->size, " and rank ",
                  found->rank, " of ", found->size, "; GRAFT_LAUNCHER names the one that counts");
    }
    if (first) return *first;
    return in_step() ? ranks_of(slurm_variables).value_or(launch_ranks{}) : launch_ranks{};
  }

  // A batch script has a SLURM_PROCID of its own, 0, and no step.
  bool in_step() const {
    return text("SLURM_STEP_ID") || text("SLURM_STEPID") || text("SLURM_PROCID").value_or("0") != "0";
  }

  // What one launcher says; nothing where none of its variables is set.
  std::optional<launch_ranks> ranks_of(launcher_variables from) const {
    const bool slurm = from.name == std::string_view("slurm");
    if (slurm && text("SLURM_STEP_NUM_TASKS")) from.size = "SLURM_STEP_NUM_TASKS";
    constexpr int most = 1 << 24;
    const auto rank = number(from.rank, 0, most), size = number(from.size, 1, most);
    auto local = number(from.local_rank, 0, most);
    // SLURM_NTASKS stands in every job's environment.
    if (!rank && !local && (!size || slurm)) return std::nullopt;
    // Slurm sets PMI_RANK and PMI_SIZE for some MPI libraries, and the local rank under its own name.
    if (from.name == std::string_view("pmi") && rank && size && !local && number("SLURM_PROCID", 0, most) == rank)
      local = number("SLURM_LOCALID", 0, most);
    const char* const missing = !rank ? from.rank : !size ? from.size : !local ? from.local_rank : nullptr;
    GRAFT_CHECK(missing == nullptr, "launch_ranks: expected ", from.rank, ", ", from.size, " and ", from.local_rank,
                " together, got no ", missing == nullptr ? "" : missing,
                "; set it, or GRAFT_LAUNCHER to what started this process");
    GRAFT_CHECK(*rank < *size && *local < *size, "launch_ranks: expected ", from.rank, " and ", from.local_rank,
                " below ", from.size, "=", *size, ", got ", *rank, " and ", *local);
    launch_ranks found;
    found.rank = static_cast<int>(*rank);
    found.local_rank = static_cast<int>(*local);
    found.size = static_cast<int>(*size);
    found.launcher = from.name;
    return found;
  }

  std::string address(const launch_ranks& found) const {
    if (const auto given = text("MASTER_ADDR"); given && !given->empty()) return *given;
    const char* const here = found.launcher == "openmpi" ? "OMPI_COMM_WORLD_LOCAL_SIZE" : "MPI_LOCALNRANKS";
    if (found.launcher == "openmpi" || found.launcher == "pmi")
      if (number(here, 1, 1 << 24) == found.size) return "127.0.0.1";
    for (const char* const list : {"SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST"})
      if (const auto nodes = text(list); nodes && !first_node(*nodes).empty()) return first_node(*nodes);
    if (const auto node = text("SLURM_LAUNCH_NODE_IPADDR"); node && !node->empty()) return *node;
    raise("launch_ranks: expected MASTER_ADDR, the address of rank 0, for ", found.size, " ranks of ", found.launcher,
          ", got none");
  }

  int port() const {
    constexpr int most = 65535;
    if (const auto exact = number("GRAFT_MASTER_PORT", 1, most)) return static_cast<int>(*exact);
    if (const auto taken = number("MASTER_PORT", 1, most - 1)) return static_cast<int>(*taken + 1);
    // Two steps at the same time on one node need two ports.
    constexpr std::int64_t any = std::int64_t{1} << 40;
    if (const auto job = number("SLURM_JOB_ID", 0, any))
      return static_cast<int>(20000 + (*job + number("SLURM_STEP_ID", 0, any).value_or(0)) % 10000);
    return 29501;
  }

  const launch_ranks::lookup& variable_;
};

}  // namespace detail

inline launch_ranks launch_ranks::from_environment(const lookup& variable) {
  return detail::launch_reader(variable).read();
}

// The device of a rank, of `devices` that it sees: that of its local number, or the only one where the launcher shows
// each process its own. Errors: more ranks on a machine than devices.
inline int device_of_rank(const launch_ranks& ranks, int devices) {
  GRAFT_CHECK(devices == 1 || ranks.local_rank < devices,
              "launch_ranks: expected a device for each rank of a machine, got local rank ", ranks.local_rank, " and ",
              devices, " devices");
  return devices == 1 ? 0 : ranks.local_rank;
}

}  // namespace graft
