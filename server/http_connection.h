// One connection of the HTTP endpoint: reads a request, sends its answer, and so on until either side closes.
//
//   kIdle -> kReading -> kWriting -> kIdle ...      between keep-alive requests, and back
//               |            |
//               +------------+--> kLingering -> kClosed
//
// Everything runs on the endpoint's thread.
#ifndef CADRE_SERVER_HTTP_CONNECTION_H_
#define CADRE_SERVER_HTTP_CONNECTION_H_

#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/empty_body.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string_view>

#include "server/http_endpoint.h"

namespace cadre {

class HttpConnection final : public std::enable_shared_from_this<HttpConnection> {
 public:
  class Owner {
   public:
    virtual ~Owner() = default;
    virtual const HttpEndpointOptions& options() const = 0;
    // The answer for a path without its query.
    virtual HttpAnswer Answer(std::string_view path) = 0;
    // The connection is about to send an answer; others may be closed to make room for it.
    virtual void OnAnswer(HttpConnection& connection) = 0;
    // Called once, as the last thing a connection does.
    virtual void OnClosed(HttpConnection& connection) = 0;
  };

  // `owner` outlives every handler of the connection.
  HttpConnection(boost::asio::ip::tcp::socket socket, Owner* owner);

  // Starts to read the first request. Once.
  void Start();
  // Closes at once, whatever is going on. Idempotent.
  void Close();

  bool writing() const { return state_ == State::kWriting; }
  size_t answer_bytes() const { return writing() ? response_->body().size() : 0; }
  // When the present state began.
  std::chrono::steady_clock::time_point since() const { return since_; }

 private:
  enum class State { kIdle, kReading, kWriting, kLingering, kClosed };
  using Response = boost::beast::http::response<boost::beast::http::string_body>;

  void Enter(State state, absl::Duration time_limit);
  void AwaitNextRequest();
  void ReadRequest();
  void OnRequest(boost::beast::error_code error);
  void OnUnreadable(boost::beast::error_code error);
  void Send(HttpAnswer answer, bool keep_alive);
  void OnSent(boost::beast::error_code error);
  void Linger();

  Owner* const owner_;
  boost::beast::tcp_stream stream_;
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::empty_body>> parser_;
  std::optional<Response> response_;
  size_t lingered_bytes_ = 0;
  State state_ = State::kIdle;
  std::chrono::steady_clock::time_point since_;
};

}  // namespace cadre

#endif  // CADRE_SERVER_HTTP_CONNECTION_H_
