// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// Notices that a rank has ended while this one waits elsewhere: for a device, whose exchange with a rank that is gone
// would never end.

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <functional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <graft/core/error.hpp>

namespace graft {

// Watches the connections of socket_communicator::connections() from a thread of its own; lost(sentence) is called
// there, once, when one of them closes. To end without alarm, every rank ends its watch, then all meet in a barrier,
// then they close.
// Requires: the connections outlive the watch.
class rank_watch {
 public:
  rank_watch(std::vector<std::pair<int, int>> connections, std::function<void(const std::string&)> lost) {
    GRAFT_CHECK(::pipe2(wake_, O_CLOEXEC) == 0, "rank_watch: expected a pipe, got none");
    thread_ = std::thread([this, connections = std::move(connections), lost = std::move(lost)] {
      std::vector<pollfd> polled;
      for (const auto& connection : connections) polled.push_back({connection.second, closing, 0});
      polled.push_back({wake_[0], POLLIN, 0});
      for (;;) {
        if (::poll(polled.data(), polled.size(), -1) < 0) {
          if (errno == EINTR) continue;
          return;
        }
        if (polled.back().revents != 0) return;
        for (std::size_t i = 0; i < connections.size(); ++i)
          if (polled[i].revents != 0)
            return lost("rank " + std::to_string(connections[i].first) + " is gone, its connection is closed");
      }
    });
  }
  rank_watch(const rank_watch&) = delete;
  rank_watch& operator=(const rank_watch&) = delete;
  ~rank_watch() {
    ::close(wake_[1]);
    thread_.join();
    ::close(wake_[0]);
  }

 private:
#if defined(POLLRDHUP)
  static constexpr short closing = POLLRDHUP;
#else
  static constexpr short closing = 0;  // POLLHUP is always reported
#endif
  int wake_[2] = {-1, -1};
  std::thread thread_;
};

}  // namespace graft
