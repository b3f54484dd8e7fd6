#include "server/running_requests.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "server/errors.h"
#include "tests/server/token_stream_fixture.h"

namespace cadre {
namespace {

class RunningRequestsTest : public TokenStreamTest {
 protected:
  std::shared_ptr<RunningRequests> running_ = std::make_shared<RunningRequests>();
};

TEST_F(RunningRequestsTest, NobodyEndsWhatAnotherCallerAskedFor) {
  stream_->SetCaller("alice");
  const auto known = running_->Add("one", stream_);
  running_->Abort("one", "bob");
  running_->Abort("one", "");
  running_->Abort("two", "alice");
  EXPECT_FALSE(cancelled());
  EXPECT_FALSE(writer_.status.has_value());
  running_->Abort("one", "alice");
  EXPECT_TRUE(cancelled());
  ASSERT_TRUE(writer_.status.has_value());
  EXPECT_EQ(writer_.status->code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(ErrorReason(*writer_.status), "CANCELLED");
}

TEST_F(RunningRequestsTest, AnIdIsKnownAsLongAsItIsHeld) {
  auto known = running_->Add("one", stream_);
  auto by_another_name = running_->Add("two", stream_);
  EXPECT_EQ(running_->size(), 2u);
  known.reset();
  EXPECT_EQ(running_->size(), 1u);
  running_->Abort("one", "");
  EXPECT_FALSE(cancelled());
  running_->Abort("two", "");
  EXPECT_TRUE(cancelled());
}

}  // namespace
}  // namespace cadre
