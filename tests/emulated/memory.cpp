// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0

// Device memory. One reserved range of addresses, of which each allocation takes new ones and never gives them back, so
// that a pointer to freed memory faults. An allocation ends at the end of a page (less what 256-byte alignment leaves)
// and an inaccessible page follows.

#include <csignal>
#include <cstdio>
#include <map>

#include <sys/mman.h>
#include <unistd.h>

#include "device.hpp"

namespace emulated {
namespace {

constexpr std::size_t page = 4096, alignment = 256;
constexpr std::size_t reserved = std::size_t{1} << 38, capacity = std::size_t{4} << 30;

struct allocation {
  std::uintptr_t first_page;
  std::size_t bytes;  // asked for
  int openings = 0;
};

std::uintptr_t round_up(std::uintptr_t value, std::uintptr_t unit) { return (value + unit - 1) / unit * unit; }

std::uintptr_t region() {
  static const std::uintptr_t first = [] {
    void* pointer = ::mmap(nullptr, reserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pointer == MAP_FAILED) {
      std::perror("emulated CUDA: reserving addresses for device memory");
      std::abort();
    }
    return reinterpret_cast<std::uintptr_t>(pointer);
  }();
  return first;
}

std::map<std::uintptr_t, allocation> allocations;  // by the address handed out
std::size_t used = 0, next = 0;

// The allocation that holds an address, or that begins there.
auto find(const void* pointer) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  auto found = allocations.upper_bound(address);
  if (found == allocations.begin()) return allocations.end();
  --found;
  return address <= found->first + found->second.bytes ? found : allocations.end();
}

void protect(std::uintptr_t address, const allocation& a, int how) {
  const std::size_t size = round_up(address + a.bytes, page) - a.first_page;
  if (size != 0) ::mprotect(reinterpret_cast<void*>(a.first_page), size, how);
}
void open(std::uintptr_t address, allocation& a) {
  if (a.openings++ == 0) protect(address, a, PROT_READ | PROT_WRITE);
}
void close(std::uintptr_t address, allocation& a) {
  if (--a.openings == 0) protect(address, a, PROT_NONE);
}

// Says who touched device memory that he may not touch, then lets whoever handled faults before report it.
struct sigaction handled_before;
bool reported = false;
void report_fault(int signal, siginfo_t* info, void*) {
  if (reported) {
    std::signal(signal, SIG_DFL);
    return;
  }
  reported = true;
  if (is_device_address(info->si_addr)) {
    char text[1024];
    int length = 0;
    if (running() != nullptr) {
      length = std::snprintf(text, sizeof(text),
                             "emulated CUDA: kernel %s, block %u, thread %u: touches %p, where no device memory is\n",
                             running()->name.c_str(), blockIdx.x, threadIdx.x, info->si_addr);
    } else {
      length =
          std::snprintf(text, sizeof(text), "emulated CUDA: the host touches device memory at %p\n", info->si_addr);
    }
    if (::write(STDERR_FILENO, text, static_cast<std::size_t>(length)) < 0) std::signal(signal, SIG_DFL);
  }
  ::sigaction(SIGSEGV, &handled_before, nullptr);  // the access is tried again
}
// At every allocation: a test framework puts its own handler there at the start of a test.
void watch_faults() {
  struct sigaction now {};
  ::sigaction(SIGSEGV, nullptr, &now);
  if ((now.sa_flags & SA_SIGINFO) != 0 && now.sa_sigaction == report_fault) return;
  handled_before = now;
  struct sigaction ours {};
  ours.sa_sigaction = report_fault;
  ours.sa_flags = SA_SIGINFO | SA_ONSTACK;
  ::sigaction(SIGSEGV, &ours, nullptr);
}

}  // namespace

void* take_memory(std::size_t bytes) {
  watch_faults();
  const std::size_t data = round_up(bytes, alignment), pages = round_up(data, page);
  if (pages > capacity || used + pages > capacity || next + pages + page > reserved) return nullptr;
  const std::uintptr_t first = region() + next, address = first + pages - data;
  next += pages + page;
  used += pages;
  ::mprotect(reinterpret_cast<void*>(first), pages, PROT_READ | PROT_WRITE);
  std::memset(reinterpret_cast<void*>(first), 0xff, pages);
  ::mprotect(reinterpret_cast<void*>(first), pages, PROT_NONE);
  allocations[address] = {first, bytes};
  return reinterpret_cast<void*>(address);
}

bool give_back_memory(void* pointer) {
  const auto found = allocations.find(reinterpret_cast<std::uintptr_t>(pointer));
  if (found == allocations.end()) return false;
  const std::uintptr_t first = found->second.first_page;
  const std::size_t pages = round_up(found->first + found->second.bytes, page) - first;
  ::madvise(reinterpret_cast<void*>(first), pages, MADV_DONTNEED);
  used -= pages;
  allocations.erase(found);
  return true;
}

std::size_t free_memory() { return capacity - used; }
std::size_t all_memory() { return capacity; }

bool is_device_address(const void* pointer) {
  const auto address = reinterpret_cast<std::uintptr_t>(pointer);
  return address >= region() && address < region() + reserved;
}

bool is_allocated(const void* pointer, std::size_t bytes) {
  const auto found = find(pointer);
  return found != allocations.end() &&
         reinterpret_cast<std::uintptr_t>(pointer) + bytes <= found->first + found->second.bytes;
}

open_memory::open_memory(const void* pointer) : pointer_(pointer) {
  if (pointer == nullptr) {
    for (auto& [address, a] : allocations) open(address, a);
  } else if (const auto found = find(pointer); found != allocations.end()) {
    open(found->first, found->second);
  }
}
open_memory::~open_memory() {
  if (pointer_ == nullptr) {
    for (auto& [address, a] : allocations) close(address, a);
  } else if (const auto found = find(pointer_); found != allocations.end()) {
    close(found->first, found->second);
  }
}

bool holds_host_pointer(const void* bytes, std::size_t size) {
  const auto* at = static_cast<const std::byte*>(bytes);
  for (std::size_t i = 0; i + sizeof(std::uintptr_t) <= size; i += sizeof(std::uintptr_t)) {
    std::uintptr_t word = 0;
    std::memcpy(&word, at + i, sizeof(word));
    // Below 2^45 lie no heap, stack or library, but pairs of integers, and what AddressSanitizer maps.
    if (word >> 45 == 0 || word >> 47 != 0 || (word >= region() && word < region() + reserved)) continue;
    unsigned char present = 0;
    const std::uintptr_t start = word / page * page;
    if (::mincore(reinterpret_cast<void*>(start), 1, &present) == 0)
      return true;  // mapped: the host has something there
  }
  return false;
}

}  // namespace emulated
