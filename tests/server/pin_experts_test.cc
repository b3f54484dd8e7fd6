// What ExpertService.PinExperts says before it comes to a cache of experts, which a simulated model has not got.
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include "tests/server/in_process_server.h"

namespace cadre {
namespace {

TEST(PinExpertsTest, PinsAreCheckedAndRefusedWhereAllExpertsAreInMemory) {
  InProcessServer server("sim:layers=4,experts=8");
  const auto pin = [&](int32_t layer, int32_t expert) {
    v1::PinExpertsRequest request;
    request.add_experts()->set_layer(1);
    v1::ExpertRef* const second = request.add_experts();
    second->set_layer(layer);
    second->set_expert(expert);
    grpc::ClientContext context;
    v1::PinExpertsResponse response;
    return server.experts->PinExperts(&context, request, &response);
  };
  const auto field_of = [](const grpc::Status& status) {
    return DetailOf<google::rpc::BadRequest>(status)->field_violations(0).field();
  };
  const grpc::Status layer = pin(4, 0);
  EXPECT_EQ(layer.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(field_of(layer), "experts[1].layer");
  EXPECT_EQ(layer.error_message(), "experts[1].layer: 4 is none of the 4 layers with experts, which are 0, 1, 2, 3");
  const grpc::Status expert = pin(0, 8);
  EXPECT_EQ(expert.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(expert.error_message(), "experts[1].expert: 8 is not in [0, 7]");
  EXPECT_EQ(field_of(pin(0, -1)), "experts[1].expert");
  const grpc::Status resident = pin(3, 7);
  EXPECT_EQ(resident.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_EQ(ReasonOf(resident), "EXPERTS_RESIDENT");
}

}  // namespace
}  // namespace cadre
