// Which role each method of every service needs: the one table that says so. A method without a line is refused.
#ifndef CADRE_SERVER_METHOD_ROLES_H_
#define CADRE_SERVER_METHOD_ROLES_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace cadre {

struct MethodRole {
  std::string_view path;  // "/cadre.v1.ModelService/GetModel", as it travels
  uint8_t roles = 0;      // bits of Role: one of them is enough
  // Changes what is everybody's: off unless --enable-operator-services.
  bool is_operators = false;
};

// Everybody may ask for it, without a key: probes have none.
inline constexpr std::string_view kHealthPrefix = "/grpc.health.v1.Health/";

// Served with --enable-vllm-engine-api alone.
inline constexpr std::string_view kVllmEnginePrefix = "/vllm.grpc.engine.VllmEngine/";

std::span<const MethodRole> MethodRoles();
std::optional<MethodRole> FindMethodRole(std::string_view path);

}  // namespace cadre

#endif  // CADRE_SERVER_METHOD_ROLES_H_
