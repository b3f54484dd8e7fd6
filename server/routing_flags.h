// The flags about how tokens choose experts.
#ifndef CADRE_SERVER_ROUTING_FLAGS_H_
#define CADRE_SERVER_ROUTING_FLAGS_H_

#include <CLI/CLI.hpp>
#include <string>

#include "engine/experts/bias_balancer.h"

namespace cadre {

// Values as they are typed. Must stay where it is from AddTo until the flags are parsed.
struct RoutingFlags {
  std::string scheme;  // empty: the model's own
  BiasBalancerOptions bias;

  void AddTo(CLI::App& app);
};

}  // namespace cadre

#endif  // CADRE_SERVER_ROUTING_FLAGS_H_
