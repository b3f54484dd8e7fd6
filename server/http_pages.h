// The pages of the HTTP endpoint.
//
//   /metrics           everything but what grows with the model, see server/metrics.h
//   /metrics/experts   every layer and every expert
//   /experts           what every expert does, for people: a page that needs nothing from elsewhere
//   /healthz           200 as long as the process answers
//   /readyz            200 while new requests are accepted, else 503: send requests elsewhere
#ifndef CADRE_SERVER_HTTP_PAGES_H_
#define CADRE_SERVER_HTTP_PAGES_H_

#include <functional>
#include <map>
#include <string>

#include "server/http_endpoint.h"
#include "server/metrics.h"

namespace cadre {

// `metrics` and what `is_ready` refers to must outlive the endpoint. It is called on the endpoint's thread.
std::map<std::string, HttpHandler> MakeHttpPages(Metrics* metrics, std::function<bool()> is_ready);

}  // namespace cadre

#endif  // CADRE_SERVER_HTTP_PAGES_H_
