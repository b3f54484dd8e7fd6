// The pages of the HTTP endpoint.
//
//   /metrics           everything but what grows with the model, see server/metrics.h
//   /metrics/experts   every layer and every expert
//   /healthz           200 while the process can still do its work, else 503: restart it
//   /readyz            200 while new requests are accepted, else 503: send requests elsewhere
#ifndef CADRE_SERVER_HTTP_PAGES_H_
#define CADRE_SERVER_HTTP_PAGES_H_

#include <functional>
#include <map>
#include <string>

#include "server/http_endpoint.h"
#include "server/metrics.h"

namespace cadre {

// `metrics` and what the functions refer to must outlive the endpoint. The functions are called on its thread.
std::map<std::string, HttpHandler> MakeHttpPages(Metrics* metrics, std::function<bool()> is_live,
                                                 std::function<bool()> is_ready);

}  // namespace cadre

#endif  // CADRE_SERVER_HTTP_PAGES_H_
