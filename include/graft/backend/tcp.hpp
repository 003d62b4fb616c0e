// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
#pragma once

// A TCP connection that says how a transfer ended. POSIX sockets, no threads.

#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <string>
#include <utility>

#include <graft/core/error.hpp>

namespace graft::detail {

using network_clock = std::chrono::steady_clock;

inline network_clock::time_point seconds_from_now(double seconds) {
  return network_clock::now() +
         std::chrono::duration_cast<network_clock::duration>(std::chrono::duration<double>(seconds));
}

enum class transfer { complete, closed, late };

// Owns a socket. A connection is not blocking: transfers wait in poll, until `end` at the longest.
class tcp_socket {
 public:
  tcp_socket() = default;
  explicit tcp_socket(int handle) : handle_(handle) {
    if (handle_ < 0) return;
    ::fcntl(handle_, F_SETFL, ::fcntl(handle_, F_GETFL) | O_NONBLOCK);
    ::fcntl(handle_, F_SETFD, FD_CLOEXEC);
  }
  tcp_socket(tcp_socket&& other) noexcept : handle_(std::exchange(other.handle_, -1)) {}
  tcp_socket& operator=(tcp_socket&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~tcp_socket() {
    if (handle_ >= 0) ::close(handle_);
  }

  bool open() const { return handle_ >= 0; }
  int handle() const { return handle_; }

  // Small messages leave at once; a machine that is gone is noticed after some minutes. No TCP_USER_TIMEOUT: it would
  // also end the connection to a process that only reads nothing for a while.
  void set_up_connection() const {
    set(IPPROTO_TCP, TCP_NODELAY, 1);
    set(SOL_SOCKET, SO_KEEPALIVE, 1);
#if defined(__linux__)
    set(IPPROTO_TCP, TCP_KEEPIDLE, 60);
    set(IPPROTO_TCP, TCP_KEEPINTVL, 10);
    set(IPPROTO_TCP, TCP_KEEPCNT, 6);
#endif
  }
  void set(int level, int option, int value) const { (void)::setsockopt(handle_, level, option, &value, sizeof value); }

  // Waits for `events` of poll. Returns whether they, or an error, came before `end`.
  bool wait(short events, network_clock::time_point end) const {
    for (;;) {
      int milliseconds = -1;
      if (end != network_clock::time_point::max()) {
        const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(end - network_clock::now()).count();
        milliseconds = left <= 0 ? 0 : left > 1000000 ? 1000000 : static_cast<int>(left) + 1;
      }
      pollfd one{handle_, events, 0};
      const int ready = ::poll(&one, 1, milliseconds);
      if (ready > 0) return true;
      if (ready < 0 && errno != EINTR) return true;  // what follows says why
      if (ready == 0 && network_clock::now() >= end) return false;
    }
  }

  transfer send(const void* bytes, std::size_t count, network_clock::time_point end) const {
    const char* at = static_cast<const char*>(bytes);
    while (count > 0) {
      const ssize_t sent = ::send(handle_, at, count, MSG_NOSIGNAL);
      if (sent >= 0) {
        at += sent;
        count -= static_cast<std::size_t>(sent);
      } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
        if (!wait(POLLOUT, end)) return transfer::late;
      } else if (errno != EINTR) {
        return transfer::closed;
      }
    }
    return transfer::complete;
  }
  transfer receive(void* bytes, std::size_t count, network_clock::time_point end) const {
    char* at = static_cast<char*>(bytes);
    while (count > 0) {
      const ssize_t got = ::recv(handle_, at, count, 0);
      if (got > 0) {
        at += got;
        count -= static_cast<std::size_t>(got);
      } else if (got == 0) {
        return transfer::closed;
      } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
        if (!wait(POLLIN, end)) return transfer::late;
      } else if (errno != EINTR) {
        return transfer::closed;
      }
    }
    return transfer::complete;
  }

 private:
  int handle_ = -1;
};

// The numeric addresses of a name, those that fit first.
class resolved_address {
 public:
  resolved_address(const std::string& name, int port) {
    addrinfo wanted{};
    wanted.ai_family = AF_UNSPEC;
    wanted.ai_socktype = SOCK_STREAM;
    const int status = ::getaddrinfo(name.c_str(), std::to_string(port).c_str(), &wanted, &list_);
    if (status != 0) {
      list_ = nullptr;
      problem_ = status == EAI_SYSTEM ? std::strerror(errno) : ::gai_strerror(status);
    }
  }
  resolved_address(const resolved_address&) = delete;
  resolved_address& operator=(const resolved_address&) = delete;
  ~resolved_address() {
    if (list_ != nullptr) ::freeaddrinfo(list_);
  }
  const addrinfo* list() const { return list_; }
  const std::string& problem() const { return problem_; }

 private:
  addrinfo* list_ = nullptr;
  std::string problem_;
};

// Listens at a port: on this machine alone where `address` is a loopback address, else for every network. Port 0 takes
// one that is free; port_of says which. Errors: a port that is taken.
inline tcp_socket tcp_listen(const std::string& address, int port) {
  const bool loopback = address == "localhost" || address.starts_with("127.");
  const auto number = htons(static_cast<std::uint16_t>(port));
  int problem = 0;
  const auto listening = [&](int family, const auto& place) {
    tcp_socket server(::socket(family, SOCK_STREAM, 0));
    if (!server.open()) return server;
    server.set(SOL_SOCKET, SO_REUSEADDR, 1);  // of a run that ended a moment ago
    if (family == AF_INET6) server.set(IPPROTO_IPV6, IPV6_V6ONLY, 0);
    if (::bind(server.handle(), reinterpret_cast<const sockaddr*>(&place), sizeof place) == 0 &&
        ::listen(server.handle(), SOMAXCONN) == 0)
      return server;
    problem = errno;
    return tcp_socket();
  };
  tcp_socket server;
  if (!loopback) {
    sockaddr_in6 place{};
    place.sin6_family = AF_INET6;
    place.sin6_port = number;
    place.sin6_addr = address == "::1" ? in6addr_loopback : in6addr_any;
    server = listening(AF_INET6, place);
  }
  if (!server.open() && problem != EADDRINUSE) {  // also where there is no IPv6
    sockaddr_in place{};
    place.sin_family = AF_INET;
    place.sin_port = number;
    place.sin_addr.s_addr = htonl(loopback ? INADDR_LOOPBACK : INADDR_ANY);
    server = listening(AF_INET, place);
  }
  GRAFT_CHECK(server.open(), "rendezvous: expected to listen at port ", port, ", got: ", std::strerror(problem),
              "; GRAFT_MASTER_PORT names another port");
  return server;
}

// The port at which a socket listens.
inline int port_of(const tcp_socket& server) {
  sockaddr_storage place{};
  socklen_t size = sizeof place;
  GRAFT_CHECK(::getsockname(server.handle(), reinterpret_cast<sockaddr*>(&place), &size) == 0,
              "rendezvous: expected a socket that listens, got: ", std::strerror(errno));
  const auto port = place.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(place).sin6_port
                                                : reinterpret_cast<const sockaddr_in&>(place).sin_port;
  return ntohs(port);
}

// The next connection; a closed socket where none came before `end`.
inline tcp_socket tcp_accept(const tcp_socket& server, network_clock::time_point end) {
  while (server.wait(POLLIN, end)) {
    tcp_socket connection(::accept(server.handle(), nullptr, nullptr));
    if (connection.open()) {
      connection.set_up_connection();
      return connection;
    }
    GRAFT_CHECK(errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR || errno == ECONNABORTED,
                "rendezvous: expected to accept a connection, got: ", std::strerror(errno));
  }
  return {};
}

// One attempt; a closed socket and the reason where it fails.
inline tcp_socket tcp_connect(const std::string& address, int port, network_clock::time_point end,
                              std::string& problem) {
  const resolved_address places(address, port);
  if (places.list() == nullptr) problem = places.problem();
  for (const addrinfo* place = places.list(); place != nullptr; place = place->ai_next) {
    tcp_socket connection(::socket(place->ai_family, SOCK_STREAM, 0));
    int status = errno;
    if (connection.open()) {
      status = ::connect(connection.handle(), place->ai_addr, place->ai_addrlen) == 0 ? 0 : errno;
      if (status == EINPROGRESS) {
        socklen_t size = sizeof status;
        if (!connection.wait(POLLOUT, end))
          status = ETIMEDOUT;
        else if (::getsockopt(connection.handle(), SOL_SOCKET, SO_ERROR, &status, &size) != 0)
          status = errno;
      }
    }
    if (status == 0) {
      connection.set_up_connection();
      return connection;
    }
    problem = std::strerror(status);
  }
  return {};
}

}  // namespace graft::detail
