// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Which rank a process is, from the variables of launchers.

#include <graft/backend/ranks.hpp>
#include <map>
#include <string>
#include <vector>

#include "catch.hpp"

namespace ranks_tests {

using namespace graft;

namespace {

using variables = std::map<std::string, std::string>;

launch_ranks ranks_from(const variables& set) {
  return launch_ranks::from_environment([&](const char* name) {
    const auto at = set.find(name);
    return at == set.end() ? nullptr : at->second.c_str();
  });
}
variables operator+(variables all, const variables& more) {
  for (const auto& [name, value] : more) all[name] = value;
  return all;
}

void check_ranks(const variables& set, const std::string& launcher, int rank, int local_rank, int size,
                 const std::string& address, int port) {
  const launch_ranks got = ranks_from(set);
  CAPTURE(launcher);
  CHECK(got.launcher == launcher);
  CHECK(got.rank == rank);
  CHECK(got.local_rank == local_rank);
  CHECK(got.size == size);
  CHECK(got.address == address);
  CHECK(got.port == port);
}

void check_refused(const variables& set, const std::vector<std::string>& parts) {
  try {
    ranks_from(set);
    FAIL("expected an error with " << parts.front());
  } catch (const error& problem) {
    const std::string sentence = problem.what();
    CAPTURE(sentence);
    CHECK(sentence.starts_with("launch_ranks: expected "));
    for (const std::string& part : parts) {
      CAPTURE(part);
      CHECK(sentence.find(part) != std::string::npos);
    }
  }
}

const variables torchrun{
    {"RANK", "3"}, {"LOCAL_RANK", "1"}, {"WORLD_SIZE", "4"}, {"MASTER_ADDR", "10.0.0.7"}, {"MASTER_PORT", "29400"}};
const variables openmpi{{"OMPI_COMM_WORLD_RANK", "1"},
                        {"OMPI_COMM_WORLD_SIZE", "2"},
                        {"OMPI_COMM_WORLD_LOCAL_RANK", "1"},
                        {"OMPI_COMM_WORLD_LOCAL_SIZE", "2"}};
const variables pmi{{"PMI_RANK", "5"}, {"PMI_SIZE", "8"}, {"MPI_LOCALRANKID", "1"}, {"MPI_LOCALNRANKS", "4"}};
const variables slurm{{"SLURM_PROCID", "5"},
                      {"SLURM_NTASKS", "8"},
                      {"SLURM_LOCALID", "1"},
                      {"SLURM_STEP_ID", "0"},
                      {"SLURM_STEP_NUM_TASKS", "8"},
                      {"SLURM_JOB_ID", "123456"},
                      {"SLURM_JOB_NODELIST", "gpu[03-04]"},
                      {"SLURM_LAUNCH_NODE_IPADDR", "10.1.1.1"}};

}  // namespace

TEST_CASE("without a launcher there is one rank", "[ranks]") {
  check_ranks({}, "none", 0, 0, 1, "", 0);
  check_ranks({{"MASTER_ADDR", "here"}, {"MASTER_PORT", "1"}}, "none", 0, 0, 1, "", 0);
}

TEST_CASE("each launcher's variables are read", "[ranks]") {
  check_ranks(torchrun, "torchrun", 3, 1, 4, "10.0.0.7", 29401);
  check_ranks(openmpi, "openmpi", 1, 1, 2, "127.0.0.1", 29501);
  check_ranks(pmi + variables{{"MASTER_ADDR", "node1"}}, "pmi", 5, 1, 8, "node1", 29501);
  check_ranks(slurm, "slurm", 5, 1, 8, "gpu03", 23456);
  check_ranks({{"RANK", "0"}, {"WORLD_SIZE", "1"}, {"LOCAL_RANK", "0"}}, "torchrun", 0, 0, 1, "", 0);
  // srun of an older Slurm, and a step of fewer tasks than its job.
  check_ranks({{"SLURM_PROCID", "1"},
               {"SLURM_NTASKS", "2"},
               {"SLURM_LOCALID", "0"},
               {"SLURM_STEPID", "3"},
               {"SLURM_JOB_NODELIST", "a,b"}},
              "slurm", 1, 0, 2, "a", 29501);
  check_ranks(slurm + variables{{"SLURM_STEP_NUM_TASKS", "6"}}, "slurm", 5, 1, 6, "gpu03", 23456);
}

TEST_CASE("address and port have an order", "[ranks]") {
  check_ranks(slurm + variables{{"MASTER_ADDR", "node9"}}, "slurm", 5, 1, 8, "node9", 23456);
  check_ranks(slurm + variables{{"SLURM_STEP_NODELIST", "gpu04"}, {"SLURM_STEP_ID", "4"}}, "slurm", 5, 1, 8, "gpu04",
              23460);
  variables without_nodes = slurm;
  without_nodes.erase("SLURM_JOB_NODELIST");
  check_ranks(without_nodes, "slurm", 5, 1, 8, "10.1.1.1", 23456);
  check_ranks(torchrun + variables{{"GRAFT_MASTER_PORT", "40000"}}, "torchrun", 3, 1, 4, "10.0.0.7", 40000);
  check_ranks(slurm + variables{{"MASTER_PORT", "1000"}}, "slurm", 5, 1, 8, "gpu03", 1001);
}

TEST_CASE("the first node of a list", "[ranks]") {
  CHECK(detail::first_node("gpu03") == "gpu03");
  CHECK(detail::first_node("gpu03,gpu04") == "gpu03");
  CHECK(detail::first_node("gpu[03-07,11],fat1") == "gpu03");
  CHECK(detail::first_node("gpu[3,5-7]") == "gpu3");
  CHECK(detail::first_node("rack[1-2]node[08,10]-ib,x") == "rack1node08-ib");
  CHECK(detail::first_node("") == "");
}

TEST_CASE("launchers nest", "[ranks]") {
  // torchrun or mpirun in a Slurm step: Slurm counts another thing.
  check_ranks(torchrun + slurm, "torchrun", 3, 1, 4, "10.0.0.7", 29401);
  check_ranks(openmpi + slurm, "openmpi", 1, 1, 2, "127.0.0.1", 23456);
  // srun --mpi=pmi2 sets two of the three.
  check_ranks(slurm + variables{{"PMI_RANK", "5"}, {"PMI_SIZE", "8"}}, "pmi", 5, 1, 8, "gpu03", 23456);
  // What a batch script runs itself is one rank, though the job has tasks.
  check_ranks({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}, {"SLURM_LOCALID", "0"}, {"SLURM_JOB_ID", "1"}}, "none", 0,
              0, 1, "", 0);
  check_ranks({{"SLURM_NTASKS", "8"}}, "none", 0, 0, 1, "", 0);
  check_ranks(torchrun + openmpi + variables{{"GRAFT_LAUNCHER", "torchrun"}}, "torchrun", 3, 1, 4, "10.0.0.7", 29401);
  check_ranks(torchrun + slurm + variables{{"GRAFT_LAUNCHER", "slurm"}}, "slurm", 5, 1, 8, "10.0.0.7", 29401);
  check_ranks(torchrun + slurm + variables{{"GRAFT_LAUNCHER", "none"}}, "none", 0, 0, 1, "", 0);
}

TEST_CASE("what makes no sense is refused", "[ranks]") {
  check_refused(torchrun + variables{{"RANK", "4"}}, {"RANK and LOCAL_RANK below WORLD_SIZE=4, got 4 and 1"});
  check_refused(torchrun + variables{{"LOCAL_RANK", "4"}}, {"below WORLD_SIZE=4, got 3 and 4"});
  check_refused(torchrun + variables{{"RANK", "first"}}, {"RANK to be a whole number", "got 'first'"});
  check_refused(torchrun + variables{{"RANK", "-1"}}, {"RANK to be a whole number", "got '-1'"});
  check_refused(torchrun + variables{{"WORLD_SIZE", "0"}}, {"WORLD_SIZE to be a whole number from 1", "got '0'"});
  check_refused(torchrun + variables{{"WORLD_SIZE", ""}}, {"WORLD_SIZE", "got ''"});
  check_refused(torchrun + variables{{"MASTER_PORT", "65535"}}, {"MASTER_PORT", "from 1 to 65534", "got '65535'"});
  check_refused(torchrun + variables{{"GRAFT_MASTER_PORT", "70000"}}, {"GRAFT_MASTER_PORT", "got '70000'"});
  for (const char* const name : {"RANK", "LOCAL_RANK", "WORLD_SIZE"}) {
    variables half = torchrun;
    half.erase(name);
    check_refused(half, {"RANK, WORLD_SIZE and LOCAL_RANK together", std::string("got no ") + name, "GRAFT_LAUNCHER"});
  }
  check_refused({{"WORLD_SIZE", "8"}}, {"got no RANK"});
  check_refused({{"PMI_RANK", "0"}, {"PMI_SIZE", "2"}}, {"got no MPI_LOCALRANKID"});
  check_refused(torchrun + openmpi,
                {"torchrun and openmpi to agree, got rank 3 of 4 and rank 1 of 2", "GRAFT_LAUNCHER"});
  check_refused(pmi, {"MASTER_ADDR", "8 ranks of pmi"});
  check_refused({{"GRAFT_LAUNCHER", "pbs"}}, {"GRAFT_LAUNCHER to be torchrun, openmpi, pmi, slurm or none, got 'pbs'"});
  check_refused({{"GRAFT_LAUNCHER", "openmpi"}},
                {"OMPI_COMM_WORLD_RANK", "GRAFT_LAUNCHER=openmpi", "got none of them"});
}

TEST_CASE("a rank has the device of its local number", "[ranks]") {
  launch_ranks ranks;
  ranks.local_rank = 3;
  CHECK(device_of_rank(ranks, 4) == 3);
  CHECK(device_of_rank(ranks, 1) == 0);
  CHECK_THROWS_WITH(device_of_rank(ranks, 2),
                    "launch_ranks: expected a device for each rank of a machine, got local rank 3 and 2 devices");
}

}  // namespace ranks_tests
