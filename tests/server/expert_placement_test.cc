// Where experts are, asked through a real channel.
#include <gtest/gtest.h>

#include "tests/server/in_process_server.h"

namespace cadre {
namespace {

TEST(ExpertServiceTest, ExpertsOfASimulatedModelAreAllThere) {
  InProcessServer server("sim:layers=3,experts=5");
  grpc::ClientContext context;
  v1::GetPlacementResponse response;
  ASSERT_TRUE(server.experts->GetPlacement(&context, v1::GetPlacementRequest(), &response).ok());
  EXPECT_EQ(response.layers_size(), 3);
  EXPECT_EQ(response.totals().device(), 15);
  EXPECT_EQ(response.device_slots(), 15);
  grpc::ClientContext other_context;
  v1::GetWhatIfResponse what_if;
  const grpc::Status status = server.experts->GetWhatIf(&other_context, v1::GetWhatIfRequest(), &what_if);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(status), "EXPERTS_RESIDENT");
}

}  // namespace
}  // namespace cadre
