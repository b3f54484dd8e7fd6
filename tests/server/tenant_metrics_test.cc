// Counts of tenants as metrics: beside the matrix of experts, as names come from outside and may be many.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "server/metrics.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(TenantMetricsTest, TheyStandBesideTheMatrix) {
  Metrics metrics(MetricsOptions{.version = "1", .revision = "2", .expert_matrix = ExpertMatrixPlacement::kFull});
  std::vector<TenantRouting> tenants(3);
  tenants[0].routing = {.processed = 5, .total_gate_weight = 2.5};
  tenants[1].tenant = TenantLedger::kOtherName;
  tenants[2].tenant = "a \"quoted\" \\ name";
  tenants[2].routing = {.processed = 1, .rerouted = 2, .reweighted = 3, .dropped = 4, .lost_gate_weight = 1.25};
  MetricsSources sources;
  sources.tenants = [&] { return tenants; };
  metrics.SetModel(ServedModel(), sources);
  EXPECT_THAT(metrics.RenderDefaultPage(), Not(HasSubstr("cadre_tenant")));
  const std::string page = metrics.RenderExpertPage();
  const std::string name = "tenant=\"a \\\"quoted\\\" \\\\ name\"";
  for (const std::string& line : {std::string("cadre_tenant_assignments_total{tenant=\"\",state=\"processed\"} 5\n"),
                                  std::string("cadre_tenant_gate_weight_total{tenant=\"\"} 2.5\n"),
                                  std::string("cadre_tenant_assignments_total{tenant=\"other\",state=\"dropped\"} 0\n"),
                                  "cadre_tenant_assignments_total{" + name + ",state=\"processed\"} 1\n",
                                  "cadre_tenant_assignments_total{" + name + ",state=\"rerouted\"} 2\n",
                                  "cadre_tenant_assignments_total{" + name + ",state=\"reweighted\"} 3\n",
                                  "cadre_tenant_assignments_total{" + name + ",state=\"dropped\"} 4\n",
                                  "cadre_tenant_lost_gate_weight_total{" + name + "} 1.25\n"}) {
    EXPECT_THAT(page, HasSubstr(line));
  }
}

}  // namespace
}  // namespace cadre
