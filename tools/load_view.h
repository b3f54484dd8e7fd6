// How busy a server is and what its experts do, as text for a terminal of any size.
#ifndef CADRE_TOOLS_LOAD_VIEW_H_
#define CADRE_TOOLS_LOAD_VIEW_H_

#include <optional>
#include <string>

#include "cadre/v1/expert_service.pb.h"
#include "cadre/v1/model_service.pb.h"

namespace cadre {

// One look at a server.
struct LoadSample {
  v1::Model model;
  v1::ModelLoad load;
  std::optional<v1::ExpertStats> experts;                  // over the window; absent while the model is loading
  std::optional<v1::GetPlacementResponse> placement = {};  // absent with them, and from servers that do not know it
};

// Differences of two samples' counters per second of the server's clock.
struct LoadRates {
  double seconds = 0.0;
  double admitted = 0.0;
  double finished = 0.0;  // however they ended
  double failed = 0.0;    // not well
  double prefill_tokens = 0.0;
  double decode_tokens = 0.0;
  double generated_tokens = 0.0;
  double steps = 0.0;
  double cache_hit_share = 0.0;  // of prompt tokens looked up; 0 when none were
  bool has_cache_queries = false;
};

// Rates between two samples; those since the start when `before` has no time, or when the server was started anew.
LoadRates RatesBetween(const v1::ModelLoad& before, const v1::ModelLoad& after);

struct ViewSize {
  int columns = 80;
  int rows = 24;
  bool color = false;
};

// At most `size.rows` lines of at most `size.columns` columns, each ended by a line break. Layers that do not fit are
// left out, and it says how many.
std::string FormatLoadView(const LoadSample& sample, const LoadRates& rates, const ViewSize& size);

}  // namespace cadre

#endif  // CADRE_TOOLS_LOAD_VIEW_H_
