// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Communicators of threads and of processes: the laws of both, and how ranks find each other.

#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <functional>
#include <future>
#include <graft/backend/rank_watch.hpp>
#include <graft/backend/socket_communicator.hpp>
#include <graft/backend/thread_communicator.hpp>
#include <thread>

#include "laws/communicator_laws.hpp"

namespace communicators_tests {

using namespace graft;
using namespace graft::test;

static_assert(Communicator<self_communicator, context<cpu>> && Communicator<thread_communicator, context<cpu>> &&
              Communicator<socket_communicator, context<cpu>>);

namespace {

// Runs a body and keeps what it returns or says.
template <class Body>
rank_outcome outcome_of(const Body& body) {
  try {
    return {body(), ""};
  } catch (const error& problem) {
    return {"", problem.what()};
  }
}

struct in_one_thread {
  template <class Body>
  std::vector<rank_outcome> operator()(int, const Body& body) const {
    context<cpu> ctx({1, 0});
    self_communicator communicator;
    return {outcome_of([&] { return body(communicator, ctx); })};
  }
};

struct in_threads {
  template <class Body>
  std::vector<rank_outcome> operator()(int size, const Body& body) const {
    thread_group group(size);
    std::vector<rank_outcome> outcomes(static_cast<std::size_t>(size));
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size; ++rank)
      threads.emplace_back([&, rank] {
        outcomes[static_cast<std::size_t>(rank)] = outcome_of([&] {
          context<cpu> ctx({1, 0});
          thread_communicator communicator(group, rank);
          return body(communicator, ctx);
        });
      });
    for (std::thread& thread : threads) thread.join();
    return outcomes;
  }
};

int free_port() { return detail::port_of(detail::tcp_listen("127.0.0.1", 0)); }

launch_ranks rank_at(int rank, int size, int port) {
  launch_ranks ranks;
  ranks.rank = ranks.local_rank = rank;
  ranks.size = size;
  ranks.address = "127.0.0.1";
  ranks.port = port;
  return ranks;
}

// Each rank a process of its own, which a minute ends in any case.
struct in_processes {
  template <class Body>
  std::vector<rank_outcome> operator()(int size, const Body& body) const {
    const int port = free_port();
    std::vector<std::array<int, 2>> pipes(static_cast<std::size_t>(size));
    std::vector<pid_t> children;
    for (int rank = 0; rank < size; ++rank) {
      const auto& ends = pipes[static_cast<std::size_t>(rank)];
      REQUIRE(::pipe(pipes[static_cast<std::size_t>(rank)].data()) == 0);
      children.push_back(::fork());
      REQUIRE(children.back() >= 0);
      if (children.back() > 0) {
        ::close(ends[1]);
        continue;
      }
      ::alarm(60);
      const rank_outcome outcome = outcome_of([&] {
        context<cpu> ctx({1, 0});
        socket_communicator communicator(rank_at(rank, size, port), {.seconds = 30});
        return body(communicator, ctx);
      });
      const std::string text = (outcome.error.empty() ? "+" : "-") + outcome.bytes + outcome.error;
      for (std::size_t at = 0; at < text.size();) {
        const ssize_t written = ::write(ends[1], text.data() + at, text.size() - at);
        if (written <= 0) break;
        at += static_cast<std::size_t>(written);
      }
      ::_exit(0);
    }
    std::vector<rank_outcome> outcomes;
    for (std::size_t rank = 0; rank < pipes.size(); ++rank) {
      std::string text;
      std::array<char, 65536> piece;
      for (ssize_t got; (got = ::read(pipes[rank][0], piece.data(), piece.size())) > 0;)
        text.append(piece.data(), static_cast<std::size_t>(got));
      ::close(pipes[rank][0]);
      int status = 0;
      REQUIRE(::waitpid(children[rank], &status, 0) == children[rank]);
      if (text.empty())
        outcomes.push_back({"", "ended with status " + std::to_string(status)});
      else if (text[0] == '+')
        outcomes.push_back({text.substr(1), ""});
      else
        outcomes.push_back({"", text.substr(1)});
    }
    return outcomes;
  }
};

template <class Run>
void check_all_sums(Run run) {
  for (const int size : {2, 3}) {
    check_sums<float>(run, size, 1001);
    check_sums<double>(run, size, 17);
    check_sums<bfloat16>(run, size, 1000);
    check_sums<std::int32_t>(run, size, 9);
    check_sums<std::int64_t>(run, size, 9);
  }
  check_sums<float>(run, 4, 1);
}

}  // namespace

TEST_CASE("one rank keeps its values, whatever the communicator", "[communicator]") {
  check_one_rank(in_one_thread());
  check_one_rank(in_threads());
  check_one_rank(in_processes());
  context<cpu> ctx({1, 0});
  socket_communicator alone;
  std::vector<float> values{1, 2};
  alone.all_reduce_sum(ctx, entire(values));
  alone.barrier();
  CHECK(values == std::vector<float>{1, 2});
}

TEST_CASE("threads sum in the order of their ranks", "[communicator]") {
  check_all_sums(in_threads());
  check_broadcasts<double>(in_threads(), 3, 101);
  check_broadcasts<bfloat16>(in_threads(), 2, 3);
  check_sequences(in_threads(), 3);
}

TEST_CASE("processes sum in the order of their ranks", "[communicator]") {
  check_all_sums(in_processes());
  check_broadcasts<double>(in_processes(), 3, 101);
  check_sequences(in_processes(), 3);
  // More than one piece, and pieces that do not fit what the network holds.
  check_sums<float>(in_processes(), 3, (std::size_t{1} << 20) / sizeof(float) * 3 + 5);
  check_broadcasts<float>(in_processes(), 2, (std::size_t{1} << 20) / sizeof(float) * 2 + 1);
}

TEST_CASE("ranks that call different things are told so", "[communicator]") {
  check_different_calls(in_threads());
  check_different_calls(in_processes());
}

TEST_CASE("a rank that is gone ends the others", "[communicator]") {
  check_rank_that_is_gone(in_threads(), [] { throw error("this rank's own trouble"); });
  check_rank_that_is_gone(in_processes(), [] { ::_exit(3); });
}

TEST_CASE("after an error every call is one", "[communicator]") {
  const auto twice = [](auto& communicator, auto& ctx) {
    if (communicator.rank() == 1) throw error("gone");
    std::vector<float> values(3);
    try {
      communicator.all_reduce_sum(ctx, entire(values));
      return std::string("no error");
    } catch (const error&) {}
    communicator.all_reduce_sum(ctx, entire(values));
    return std::string("no second error");
  };
  CHECK(in_threads()(2, twice)[0].error.find("rank 1 is gone") != std::string::npos);
  CHECK(in_processes()(2, twice)[0].error.find("after an error") != std::string::npos);
}

TEST_CASE("a group has each of its ranks once", "[communicator]") {
  CHECK_THROWS_WITH(thread_group(0), "thread_group: expected at least one rank, got 0");
  thread_group group(2);
  thread_communicator first(group, 0);
  CHECK_THROWS_WITH(thread_communicator(group, 0), "thread_communicator: rank 0 is there already");
  CHECK_THROWS_WITH(thread_communicator(group, 2), "thread_communicator: expected a rank below size=2, got 2");
}

// ---- how ranks find each other ---------------------------------------------------------------------------------

namespace {

using text_future = std::future<std::string>;

// The sentence of a rank that tries to meet the others, empty where it does.
text_future meeting(launch_ranks ranks, rendezvous_options options) {
  return std::async(std::launch::async, [=] {
    return outcome_of([&] {
             detail::rank_links(ranks, options);
             return std::string();
           })
        .error;
  });
}
bool has(const std::string& text, const std::vector<std::string>& parts) {
  UNSCOPED_INFO(text);
  for (const std::string& part : parts)
    if (text.find(part) == std::string::npos) return false;
  return true;
}

}  // namespace

TEST_CASE("rank 0 hands its bytes to all others, whoever comes first", "[rendezvous]") {
  const int port = free_port();
  std::vector<std::future<std::string>> ranks;
  for (const int rank : {2, 1, 0}) {
    ranks.push_back(std::async(std::launch::async, [=] {
      std::string block = rank == 0 ? "an id of 128 bytes, say" : std::string(23, '?');
      share_bytes(rank_at(rank, 3, port), std::as_writable_bytes(std::span(block.data(), block.size())),
                  {.seconds = 20});
      return block;
    }));
    std::this_thread::sleep_for(std::chrono::milliseconds(30));
  }
  for (auto& rank : ranks) CHECK(rank.get() == "an id of 128 bytes, say");
  std::byte one{};
  share_bytes({}, {&one, 1});  // one rank needs no address
}

TEST_CASE("ranks of other runs are refused with a sentence", "[rendezvous]") {
  const auto [other, parts] = GENERATE(table<int, std::vector<std::string>>(
      {{0, {"rank 1", "rank 0 has size=2, this rank size=3"}}, {1, {"rank 1", "rank 0 runs another command"}}}));
  const int port = free_port();
  auto leader = meeting(rank_at(0, 2, port), {.seconds = 1.5, .run = 7});
  auto stray = meeting(rank_at(1, other == 0 ? 3 : 2, port), {.seconds = 20, .run = other == 0 ? 7u : 8u});
  const std::string sentence = stray.get();
  CHECK(has(sentence, parts));
  CHECK(has(leader.get(), {"expected 2 ranks", "within 1.5 s, got 1, without rank 1", "refused: " + sentence}));
}

TEST_CASE("a rank comes once", "[rendezvous]") {
  const int port = free_port();
  auto leader = meeting(rank_at(0, 3, port), {.seconds = 0.6});
  auto first = meeting(rank_at(1, 3, port), {.seconds = 1}), second = meeting(rank_at(1, 3, port), {.seconds = 1});
  CHECK(has(leader.get(), {"got 2, without rank 2"}));
  const std::string one = first.get(), two = second.get();
  CHECK((has(one, {"rank 1 is there already"}) != has(two, {"rank 1 is there already"})));
}

TEST_CASE("strangers are left out", "[rendezvous]") {
  const int port = free_port();
  auto leader = meeting(rank_at(0, 2, port), {.seconds = 20});
  const auto end = detail::seconds_from_now(20);
  std::string problem;
  detail::tcp_socket loud;
  while (!loud.open()) loud = detail::tcp_connect("127.0.0.1", port, end, problem);
  const std::string request = "GET / HTTP/1.1\r\nHost: here\r\n\r\n";
  CHECK(loud.send(request.data(), request.size(), end) == detail::transfer::complete);
  {
    const detail::tcp_socket gone = detail::tcp_connect("127.0.0.1", port, end, problem);
    CHECK(gone.open());
  }
  auto second = meeting(rank_at(1, 2, port), {.seconds = 20});
  CHECK(second.get() == "");
  CHECK(leader.get() == "");
}

TEST_CASE("a port that others hold is named", "[rendezvous]") {
  const detail::tcp_socket holder = detail::tcp_listen("127.0.0.1", 0);
  const int port = detail::port_of(holder);
  const std::string name = std::to_string(port);
  CHECK(has(meeting(rank_at(0, 2, port), {.seconds = 5}).get(),
            {"expected to listen at port " + name, "Address already in use", "GRAFT_MASTER_PORT"}));
  // The other ranks see that what answers there is no rank 0.
  auto other = meeting(rank_at(1, 2, port), {.seconds = 20});
  const auto end = detail::seconds_from_now(20);
  const detail::tcp_socket connection = detail::tcp_accept(holder, end);
  const std::string greeting = "220 mail.example.org ready\r\n";
  CHECK(connection.send(greeting.data(), greeting.size(), end) == detail::transfer::complete);
  CHECK(has(other.get(), {"expected rank 0 at 127.0.0.1:" + name, "something else", "GRAFT_MASTER_PORT"}));
}

TEST_CASE("ranks do not wait for ever", "[rendezvous]") {
  const int port = free_port();
  CHECK(
      has(meeting(rank_at(0, 3, port), {.seconds = 0.2}).get(), {"expected 3 ranks", "0.2 s, got 1, without rank 1"}));
  CHECK(has(meeting(rank_at(1, 2, port), {.seconds = 0.2}).get(),
            {"rank 1 expected rank 0 at 127.0.0.1:" + std::to_string(port), "0.2 s", "Connection refused"}));
  launch_ranks nowhere = rank_at(1, 2, port);
  nowhere.address = "";
  CHECK(has(meeting(nowhere, {}).get(), {"expected the address of rank 0 for 2 ranks"}));
}

TEST_CASE("a watch notices that a rank has ended, and no orderly end", "[rendezvous]") {
  for (const bool accident : {true, false}) {
    const auto outcomes = in_processes()(2, [&](socket_communicator& communicator, context<cpu>&) {
      std::promise<std::string> said;
      std::future<std::string> sentence = said.get_future();
      {
        rank_watch watch(communicator.connections(), [&](const std::string& text) { said.set_value(text); });
        if (accident && communicator.rank() == 1) ::_exit(3);
        if (accident) return sentence.get();
      }
      communicator.barrier();
      return std::string(sentence.wait_for(std::chrono::seconds(0)) == std::future_status::ready ? "alarm" : "quiet");
    });
    CHECK(outcomes[0].bytes == (accident ? "rank 1 is gone, its connection is closed" : "quiet"));
    if (!accident) CHECK(outcomes[1].bytes == "quiet");
  }
}

}  // namespace communicators_tests
