#include "server/http_pages.h"

#include <chrono>
#include <memory>
#include <utility>

#include "server/experts_page.h"

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

// Nothing may come from anywhere but this server, or be put into somebody else's page.
constexpr char kContentPolicy[] =
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'";

std::vector<std::pair<std::string, std::string>> PageHeaders() {
  return {{"Content-Security-Policy", kContentPolicy},
          {"X-Content-Type-Options", "nosniff"},
          {"Referrer-Policy", "no-referrer"},
          {"Cache-Control", "no-store"}};
}

HttpHandler PageFile(const char* content_type, std::string_view text) {
  return [=] { return HttpAnswer{200, content_type, std::string(text), PageHeaders()}; };
}

// However many pages are open, the counters are read a few times a second.
constexpr std::chrono::milliseconds kExpertJsonAge{200};
constexpr std::chrono::milliseconds kExpertKindsAge{2000};

HttpHandler ExpertData(std::function<std::string()> render, std::chrono::milliseconds age) {
  struct Cached {
    std::chrono::steady_clock::time_point time;
    std::string json;
  };
  return [render = std::move(render), age, cached = std::make_shared<Cached>()] {
    const auto now = std::chrono::steady_clock::now();
    if (cached->json.empty() || now - cached->time >= age) *cached = {now, render()};
    return HttpAnswer{200, "application/json; charset=utf-8", cached->json, PageHeaders()};
  };
}

}  // namespace

std::map<std::string, HttpHandler> MakeHttpPages(Metrics* metrics, std::function<bool()> is_ready) {
  return {{"/metrics", MetricsPage([metrics] { return metrics->RenderDefaultPage(); })},
          {"/metrics/experts", MetricsPage([metrics] { return metrics->RenderExpertPage(); })},
          {"/experts", PageFile("text/html; charset=utf-8", kExpertsHtml)},
          {"/experts.css", PageFile("text/css; charset=utf-8", kExpertsCss)},
          {"/experts.js", PageFile("text/javascript; charset=utf-8", kExpertsJs)},
          {"/experts/window.json",
           ExpertData([metrics] { return metrics->RenderExpertJson(/*window=*/true); }, kExpertJsonAge)},
          {"/experts/total.json",
           ExpertData([metrics] { return metrics->RenderExpertJson(/*window=*/false); }, kExpertJsonAge)},
          {"/experts/kinds.json", ExpertData([metrics] { return metrics->RenderExpertKindsJson(); }, kExpertKindsAge)},
          {"/healthz", ProbePage([] { return true; })},
          {"/readyz", ProbePage(std::move(is_ready))}};
}

}  // namespace cadre
