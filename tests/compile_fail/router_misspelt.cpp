// SPDX-FileCopyrightText: 2026 The graft authors
// SPDX-License-Identifier: Apache-2.0
// expect: no static constexpr router_spec spec.*no static constexpr const char. name.*no forward.group, token.*no
// backward.group, token

// Every member that is missing, here by a slip of the pen, has its sentence.

#include <graft/policies/router/router.hpp>

struct right {
  static constexpr graft::router_spec spec{.experts_per_token = 1};
  static constexpr const char* name = "right";
  template <class Group, class M>
  GRAFT_HOST_DEVICE void forward(Group&, const graft::routing_token<M>&, const M*, graft::index_t, std::int32_t*,
                                 M*) const {}
  template <class Group, class M>
  GRAFT_HOST_DEVICE void backward(Group&, const graft::routing_token<M>&, const M*, graft::index_t, const std::int32_t*,
                                  const M*, const M*, M*) const {}
};
static_assert(graft::check_router<right>());
static_assert(graft::Router<right>);

struct misspelt {
  static constexpr graft::router_spec specs{.experts_per_token = 1};
  static constexpr const char* names = "misspelt";
  template <class Group, class M>
  GRAFT_HOST_DEVICE void froward(Group&, const graft::routing_token<M>&, const M*, graft::index_t, std::int32_t*,
                                 M*) const {}
  template <class Group, class M>  // d_weights is missing
  GRAFT_HOST_DEVICE void backward(Group&, const graft::routing_token<M>&, const M*, graft::index_t, const std::int32_t*,
                                  const M*, M*) const {}
};
static_assert(!graft::Router<misspelt>);

#ifdef GRAFT_MUST_FAIL
static_assert(graft::check_router<misspelt>());
#endif
