#include "server/method_roles.h"

#include <algorithm>
#include <iterator>

#include "server/api_keys.h"

namespace cadre {
namespace {

constexpr MethodRole kMethodRoles[] = {
    {"/cadre.v1.GenerationService/Generate", kRoleGeneration},
    {"/cadre.v1.GenerationService/GenerateText", kRoleGeneration},
    {"/cadre.v1.GenerationService/Tokenize", kRoleGeneration},
    {"/cadre.v1.GenerationService/Detokenize", kRoleGeneration},

    {"/cadre.v1.ModelService/GetModel", kAnyRole},
    {"/cadre.v1.ModelService/ListModels", kAnyRole},
    {"/cadre.v1.ModelService/GetLoad", kAnyRole},

    {"/cadre.v1.ExpertService/GetExpertStats", kRoleExpertsRead},
    {"/cadre.v1.ExpertService/WatchExpertStats", kRoleExpertsRead},
    {"/cadre.v1.ExpertService/GetTenantStats", kRoleExpertsRead},
    {"/cadre.v1.ExpertService/GetPlacement", kRoleExpertsRead},
    {"/cadre.v1.ExpertService/GetWhatIf", kRoleExpertsRead},
    {"/cadre.v1.ExpertService/ExportProfile", kRoleExpertsRead},
    {"/cadre.v1.ExpertService/ResetStats", kRoleOperator, /*is_operators=*/true},
    {"/cadre.v1.ExpertService/SetCapacityPolicy", kRoleOperator, /*is_operators=*/true},
    {"/cadre.v1.ExpertService/ResetRouterBias", kRoleOperator, /*is_operators=*/true},
    {"/cadre.v1.ExpertService/PinExperts", kRoleOperator, /*is_operators=*/true},
    {"/cadre.v1.ExpertService/ImportProfile", kRoleOperator, /*is_operators=*/true},

    {"/vllm.grpc.engine.VllmEngine/Generate", kRoleGeneration},
    {"/vllm.grpc.engine.VllmEngine/Abort", kRoleGeneration},
    {"/vllm.grpc.engine.VllmEngine/GetTokenizer", kRoleGeneration},
    {"/vllm.grpc.engine.VllmEngine/HealthCheck", kAnyRole},
    {"/vllm.grpc.engine.VllmEngine/GetModelInfo", kAnyRole},
    {"/vllm.grpc.engine.VllmEngine/GetServerInfo", kAnyRole},
    {"/vllm.grpc.engine.VllmEngine/GetLoads", kAnyRole},

    {"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo", kAnyRole},
};

}  // namespace

std::span<const MethodRole> MethodRoles() { return kMethodRoles; }

std::optional<MethodRole> FindMethodRole(std::string_view path) {
  const auto* const found = std::find_if(std::begin(kMethodRoles), std::end(kMethodRoles),
                                         [path](const MethodRole& method) { return method.path == path; });
  if (found == std::end(kMethodRoles)) return std::nullopt;
  return *found;
}

}  // namespace cadre
