// A small HTTP/1.1 endpoint for scrapers and probes: GET and HEAD of a few fixed paths, one thread of its own, and
// bounds on everything a client may hold: header bytes, connections, and the time to send or to read.
#ifndef CADRE_SERVER_HTTP_ENDPOINT_H_
#define CADRE_SERVER_HTTP_ENDPOINT_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace cadre {

struct HttpAnswer {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers = {};  // further ones
};

// Content type of the Prometheus text format.
inline constexpr char kPrometheusContentType[] = "text/plain; version=0.0.4; charset=utf-8";

// Runs on the endpoint's thread and must not block.
using HttpHandler = std::function<HttpAnswer()>;

struct HttpEndpointOptions {
  std::string host = "127.0.0.1";  // an IPv4 or IPv6 address
  uint16_t port = 0;               // 0: any free port
  size_t max_connections = 256;    // one more drops the oldest one, those still being answered last
  uint32_t max_header_bytes = 8192;
  absl::Duration header_timeout = absl::Seconds(5);  // from accept, or from the last answer's end, to a whole request
  absl::Duration write_timeout = absl::Seconds(10);  // for a whole answer
};

class HttpEndpoint {
 public:
  // Binds, listens and starts the thread. Keys of `handlers` are paths ("/metrics"); a query is ignored.
  // INVALID_ARGUMENT for a host that is not an address; UNAVAILABLE, naming address and port, when it cannot be bound.
  static absl::StatusOr<std::unique_ptr<HttpEndpoint>> Start(const HttpEndpointOptions& options,
                                                             std::map<std::string, HttpHandler> handlers);
  // Closes every connection and joins the thread.
  ~HttpEndpoint();
  HttpEndpoint(const HttpEndpoint&) = delete;
  HttpEndpoint& operator=(const HttpEndpoint&) = delete;

  uint16_t port() const;        // the bound one
  std::string address() const;  // "127.0.0.1:9464", "[::1]:9464"

 private:
  struct State;
  explicit HttpEndpoint(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace cadre

#endif  // CADRE_SERVER_HTTP_ENDPOINT_H_
