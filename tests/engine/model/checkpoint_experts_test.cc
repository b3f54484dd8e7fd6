// Experts read one at a time are those that are loaded together: of every committed checkpoint, fused, sharded and
// separate, as stored and converted.
#include "engine/model/checkpoint_experts.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "engine/model/config_reader.h"
#include "engine/model/expert_layout.h"
#include "engine/model/weights.h"
#include "kernels/cpu/cpu_device.h"

namespace cadre {
namespace {

absl::Status GoOn() { return absl::OkStatus(); }

using testing::HasSubstr;

void ExpectSame(const std::filesystem::path& folder, const WeightsOptions& options, Device& device) {
  const auto config = LoadModelConfig(folder);
  ASSERT_TRUE(config.ok()) << config.status();
  const auto checkpoint = Checkpoint::Open(folder, *config, options);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const auto all = (*checkpoint)->Load(device);
  const auto dense = (*checkpoint)->Load(device, ExpertPlace::kCheckpoint);
  ASSERT_TRUE(all.ok() && dense.ok()) << all.status() << dense.status();
  EXPECT_EQ(all->expert_source, nullptr);
  ASSERT_NE(dense->expert_source, nullptr);
  const ExpertLayout layout(*config, all->expert_dtype);
  ASSERT_EQ(dense->expert_source->expert_bytes(), layout.size_bytes());
  EXPECT_EQ((*checkpoint)->summary().one_expert_bytes, layout.size_bytes());
  const DeviceBuffer slot = device.Allocate(static_cast<size_t>(layout.size_bytes())).value();
  ExpertId id = 0;
  for (size_t layer = 0; layer < all->layers.size(); ++layer) {
    for (size_t e = 0; e < all->layers[layer].experts.size(); ++e, ++id) {
      const MlpWeights& expected = all->layers[layer].experts[e];
      EXPECT_TRUE(dense->layers[layer].experts[e].gate.empty());
      EXPECT_EQ(dense->expert_source->Describe(id), absl::StrCat("expert ", e, " of layer ", layer));
      const absl::Status read = dense->expert_source->Read(id, std::span(slot.data(), slot.size_bytes()), GoOn);
      ASSERT_TRUE(read.ok()) << read;
      const MlpWeights found = layout.At(slot.data());
      const auto expect_equal = [](ConstView a, ConstView b) {
        ASSERT_EQ(a.shape(), b.shape());
        ASSERT_EQ(a.dtype(), b.dtype());
        EXPECT_EQ(std::memcmp(a.raw(), b.raw(), a.size_bytes()), 0);
      };
      expect_equal(found.gate, expected.gate);
      expect_equal(found.up, expected.up);
      expect_equal(found.down, expected.down);
    }
  }
  EXPECT_EQ(id, config->num_moe_layers() * config->num_experts);
}

TEST(CheckpointExpertsTest, AreThoseOfAWholeLoad) {
  const std::unique_ptr<Device> device = CreateCpuDevice({.num_threads = 1}).value();
  int num_checkpoints = 0;
  for (const auto& entry : std::filesystem::directory_iterator("tests/golden/checkpoints")) {
    if (!entry.is_directory()) continue;
    SCOPED_TRACE(entry.path().filename().string());
    ++num_checkpoints;
    ExpectSame(entry.path(), {}, *device);
    for (const DType dtype : {DType::kF32, DType::kBF16}) ExpectSame(entry.path(), {.dtype = dtype}, *device);
    for (const DType dtype : {DType::kQ8, DType::kQ4}) ExpectSame(entry.path(), {.quantized = dtype}, *device);
  }
  EXPECT_GT(num_checkpoints, 10);
}

class ChangedCheckpointTest : public testing::Test {
 protected:
  ChangedCheckpointTest() {
    std::filesystem::copy("models/demo", folder_, std::filesystem::copy_options::recursive);
    config_ = LoadModelConfig(folder_).value();
    device_ = CreateCpuDevice({.num_threads = 1}).value();
    weights_ = Checkpoint::Open(folder_, config_).value()->Load(*device_, ExpertPlace::kCheckpoint).value();
    slot_ = device_->Allocate(static_cast<size_t>(weights_.expert_source->expert_bytes())).value();
    std::ifstream file(path_, std::ios::binary);
    whole_.assign(std::istreambuf_iterator<char>(file), {});
  }
  ~ChangedCheckpointTest() override { std::filesystem::remove_all(folder_); }

  absl::Status Read(ExpertId expert) {
    return weights_.expert_source->Read(expert, std::span(slot_.data(), slot_.size_bytes()), GoOn);
  }
  void Write(const std::string& bytes) {
    std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  }

  const std::filesystem::path folder_ =
      std::filesystem::path(testing::TempDir()) / absl::StrCat("changed-checkpoint-", getpid());
  const std::filesystem::path path_ = folder_ / "model.safetensors";
  ModelConfig config_;
  std::unique_ptr<Device> device_;
  Weights weights_;
  DeviceBuffer slot_;
  std::string whole_;
};

TEST_F(ChangedCheckpointTest, AFileThatWasMendedIsReadOn) {
  ASSERT_TRUE(Read(3).ok());
  std::filesystem::resize_file(path_, whole_.size() / 3);
  EXPECT_EQ(Read(40).code(), absl::StatusCode::kDataLoss);
  Write(whole_);
  std::filesystem::last_write_time(path_, std::filesystem::file_time_type::clock::now() + std::chrono::seconds(5));
  EXPECT_TRUE(Read(40).ok()) << Read(40);
}

TEST_F(ChangedCheckpointTest, AnotherCheckpointInItsPlaceIsRefused) {
  std::string other = whole_;
  for (size_t i = whole_.size() / 10; i < other.size(); i += 2) other[i] = static_cast<char>(other[i] ^ 1);
  Write(other);
  std::filesystem::last_write_time(path_, std::filesystem::file_time_type::clock::now() + std::chrono::seconds(5));
  EXPECT_EQ(Read(3).code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(Read(3).message(), HasSubstr("changed after it was opened"));
}

TEST_F(ChangedCheckpointTest, AReadEndsWhenItIsTold) {
  int asked = 0;
  const auto pace = [&asked] { return ++asked < 3 ? absl::OkStatus() : absl::CancelledError("enough"); };
  const absl::Status status = weights_.expert_source->Read(0, std::span(slot_.data(), slot_.size_bytes()), pace);
  EXPECT_EQ(status, absl::CancelledError("enough"));
  EXPECT_EQ(asked, 3) << "before each matrix at least, and not again";
}

}  // namespace
}  // namespace cadre
