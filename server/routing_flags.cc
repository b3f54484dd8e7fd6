#include "server/routing_flags.h"

#include "server/capacity_flags.h"

namespace cadre {

void RoutingFlags::AddTo(CLI::App& app) {
  app.add_option("--routing-override", scheme,
                 "Another routing scheme than the model's: NAME[,setting=value...], or JSON (docs/routing.md)");
  app.add_option("--router-bias-rate", bias.rate,
                 "Nudge routers towards even load, so far at the end of a window; answers then depend on what was "
                 "served before. 0: never")
      ->check(NumberIn(0.0, 1.0));
  app.add_option("--router-bias-window", bias.window_tokens, "Tokens of such a window")->check(CLI::Range(1, 1 << 30));
  app.add_option("--router-bias-limit", bias.limit, "How far a bias may go from the checkpoint's")
      ->check(NumberIn(0.0, 1000.0));
}

}  // namespace cadre
