#include "server/http_pages.h"

#include <utility>

namespace cadre {
namespace {

HttpHandler MetricsPage(std::function<std::string()> render) {
  return [render = std::move(render)] { return HttpAnswer{200, kPrometheusContentType, render()}; };
}

HttpHandler ProbePage(std::function<bool()> probe) {
  return [probe = std::move(probe)] {
    HttpAnswer answer;
    const bool ok = probe();
    answer.status = ok ? 200 : 503;
    answer.body = ok ? "ok\n" : "unavailable\n";
    return answer;
  };
}

}  // namespace

std::map<std::string, HttpHandler> MakeHttpPages(Metrics* metrics, std::function<bool()> is_ready) {
  return {{"/metrics", MetricsPage([metrics] { return metrics->RenderDefaultPage(); })},
          {"/metrics/experts", MetricsPage([metrics] { return metrics->RenderExpertPage(); })},
          {"/healthz", ProbePage([] { return true; })},
          {"/readyz", ProbePage(std::move(is_ready))}};
}

}  // namespace cadre
