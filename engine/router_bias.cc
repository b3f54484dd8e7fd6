#include "engine/router_bias.h"

#include "engine/base/check.h"

namespace cadre {
namespace {

RouterBiasReport Origin(const BiasBalancerOptions& options, const ModelRunner& runner) {
  if (!options.is_on()) return {};
  return {.options = options, .bias = runner.selection_bias()};
}

}  // namespace

RouterBias::RouterBias(const BiasBalancerOptions& options, ModelRunner* runner)
    : runner_(runner), report_(Origin(options, *runner)), origin_(report_) {
  if (!options.is_on()) return;
  CADRE_CHECK(!origin_.bias.empty());
  balancer_.emplace(options, runner->limits().num_experts, origin_.bias);
}

bool RouterBias::Observe(const StepRouting& step) {
  if (!balancer_ || !balancer_->Observe(step)) return false;
  runner_->SetSelectionBias(balancer_->bias());
  Publish();
  return true;
}

void RouterBias::ApplyReset() {
  if (!must_reset_.load(std::memory_order_acquire)) return;
  balancer_->Reset();
  ++epoch_;
  runner_->SetSelectionBias(balancer_->bias());
  Publish();
  must_reset_.store(false, std::memory_order_release);
}

void RouterBias::Publish() {
  const std::lock_guard lock(mutex_);
  report_.num_updates = balancer_->num_updates();
  report_.largest_nudge = balancer_->largest_nudge();
  report_.bias = balancer_->bias();
}

bool RouterBias::RequestReset() {
  if (!origin_.options.is_on()) return false;
  must_reset_.store(true, std::memory_order_release);
  return true;
}

RouterBiasReport RouterBias::Report() const {
  if (must_reset_.load(std::memory_order_acquire)) return origin_;
  const std::lock_guard lock(mutex_);
  return report_;
}

}  // namespace cadre
