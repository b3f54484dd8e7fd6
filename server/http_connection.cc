#include "server/http_connection.h"

#include <boost/beast/http/error.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/write.hpp>
#include <utility>

#include "absl/time/time.h"

namespace cadre {
namespace {

namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::asio::ip::tcp;

// Scrapers come back every 15 to 60 seconds and keep their connection.
constexpr absl::Duration kIdleTimeout = absl::Seconds(90);
// A client that is still sending when its answer is complete would lose the answer to a reset: what it sends is read
// and thrown away for so long, and for so many bytes.
constexpr absl::Duration kLingerTimeout = absl::Seconds(1);
constexpr size_t kMaxLingerBytes = 64 * 1024;

HttpAnswer ErrorAnswer(http::status status, std::string_view text) {
  HttpAnswer answer;
  answer.status = static_cast<int>(status);
  answer.body = std::string(text) + "\n";
  return answer;
}

}  // namespace

HttpConnection::HttpConnection(tcp::socket socket, Owner* owner)
    : owner_(owner), stream_(std::move(socket)), buffer_(owner->options().max_header_bytes) {}

void HttpConnection::Start() { ReadRequest(); }

void HttpConnection::Close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  beast::error_code ignored;
  stream_.socket().close(ignored);
  owner_->OnClosed(*this);
}

// The time limit holds for everything the new state does: bytes that trickle in do not extend it.
void HttpConnection::Enter(State state, absl::Duration time_limit) {
  state_ = state;
  since_ = std::chrono::steady_clock::now();
  stream_.expires_after(absl::ToChronoNanoseconds(time_limit));
}

void HttpConnection::AwaitNextRequest() {
  if (buffer_.size() > 0) return ReadRequest();
  Enter(State::kIdle, kIdleTimeout);
  stream_.async_read_some(buffer_.prepare(buffer_.max_size()),
                          [self = shared_from_this()](beast::error_code error, size_t bytes) {
                            if (error || self->state_ == State::kClosed) return self->Close();
                            self->buffer_.commit(bytes);
                            self->ReadRequest();
                          });
}

void HttpConnection::ReadRequest() {
  Enter(State::kReading, owner_->options().header_timeout);
  parser_.emplace();
  parser_->header_limit(owner_->options().max_header_bytes);
  http::async_read_header(stream_, buffer_, *parser_,
                          [self = shared_from_this()](beast::error_code error, size_t) { self->OnRequest(error); });
}

void HttpConnection::OnRequest(beast::error_code error) {
  if (state_ == State::kClosed) return;
  if (error) return OnUnreadable(error);

  const auto& request = parser_->get();
  // A body is never read, so the next request could not be found behind it.
  const bool has_body = !parser_->is_done();
  if (request.method() != http::verb::get && request.method() != http::verb::head) {
    return Send(ErrorAnswer(http::status::method_not_allowed, "Only GET and HEAD are allowed."), false);
  }
  if (has_body) return Send(ErrorAnswer(http::status::bad_request, "A request must not have a body."), false);
  const std::string_view target(request.target().data(), request.target().size());
  Send(owner_->Answer(target.substr(0, target.find('?'))), request.keep_alive());
}

void HttpConnection::OnUnreadable(beast::error_code error) {
  if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    return Send(ErrorAnswer(http::status::request_header_fields_too_large, "The request's header is too large."),
                false);
  }
  // What the parser itself refused is HTTP to be answered; what the socket says is the end of the connection.
  const bool is_parse_error = error.category() == make_error_code(http::error::bad_method).category() &&
                              error != http::error::end_of_stream && error != http::error::partial_message;
  if (is_parse_error) return Send(ErrorAnswer(http::status::bad_request, "The request is not valid HTTP/1.1."), false);
  Close();
}

void HttpConnection::Send(HttpAnswer answer, bool keep_alive) {
  const auto status = static_cast<http::status>(answer.status);
  const bool is_head = parser_->is_header_done() && parser_->get().method() == http::verb::head;
  response_.emplace(status, 11);
  response_->set(http::field::content_type, answer.content_type);
  for (const auto& [name, value] : answer.headers) response_->set(name, value);
  if (status == http::status::method_not_allowed) response_->set(http::field::allow, "GET, HEAD");
  response_->keep_alive(keep_alive);
  response_->content_length(answer.body.size());
  if (!is_head) response_->body() = std::move(answer.body);

  Enter(State::kWriting, owner_->options().write_timeout);
  owner_->OnAnswer(*this);
  http::async_write(stream_, *response_,
                    [self = shared_from_this()](beast::error_code error, size_t) { self->OnSent(error); });
}

void HttpConnection::OnSent(beast::error_code error) {
  if (error || state_ == State::kClosed) return Close();
  const bool keep_alive = response_->keep_alive();
  response_.reset();
  if (keep_alive) return AwaitNextRequest();
  stream_.socket().shutdown(tcp::socket::shutdown_send, error);
  if (error) return Close();
  Enter(State::kLingering, kLingerTimeout);
  Linger();
}

void HttpConnection::Linger() {
  buffer_.clear();
  stream_.async_read_some(buffer_.prepare(buffer_.max_size()),
                          [self = shared_from_this()](beast::error_code error, size_t bytes) {
                            self->lingered_bytes_ += bytes;
                            if (error || self->lingered_bytes_ > kMaxLingerBytes) return self->Close();
                            self->Linger();
                          });
}

}  // namespace cadre
