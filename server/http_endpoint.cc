#include "server/http_endpoint.h"

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <exception>
#include <functional>
#include <list>
#include <thread>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/base/status_macros.h"
#include "server/http_connection.h"

namespace cadre {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

// Bodies being sent at a time: clients that ask for large pages and do not read them hold no more than this.
constexpr size_t kMaxAnswerBytes = 64 << 20;
// After a failed accept (no descriptors left), before the next one.
constexpr std::chrono::milliseconds kAcceptPause(50);

std::string AddressText(const tcp::endpoint& endpoint) {
  const std::string host = endpoint.address().to_string();
  return absl::StrCat(endpoint.address().is_v6() ? absl::StrCat("[", host, "]") : host, ":", endpoint.port());
}

}  // namespace

struct HttpEndpoint::State final : HttpConnection::Owner {
  State(const HttpEndpointOptions& endpoint_options, std::map<std::string, HttpHandler> endpoint_handlers)
      : options_(endpoint_options), handlers_(std::move(endpoint_handlers)) {}
  ~State() override;

  absl::Status Listen();
  absl::Status ListenAt(const tcp::endpoint& wanted);
  void Run();

  const HttpEndpointOptions& options() const override { return options_; }
  HttpAnswer Answer(std::string_view path) override;
  void OnAnswer(HttpConnection& connection) override;
  void OnClosed(HttpConnection& connection) override;

  void Accept();
  void OnAccept(error_code error, tcp::socket socket);
  // Closes the one of the eligible connections that has been in its state for the longest; false when there is none.
  bool CloseOldest(const std::function<bool(const HttpConnection&)>& eligible);
  void MakeRoom();

  const HttpEndpointOptions options_;
  const std::map<std::string, HttpHandler> handlers_;
  asio::io_context context_{1};
  tcp::acceptor acceptor_{context_};
  asio::steady_timer accept_pause_{context_};
  tcp::endpoint bound_;  // constant after Listen

  // Endpoint thread only.
  bool accepting_ = false;  // an accept, or the pause before it, is under way
  std::list<std::shared_ptr<HttpConnection>> connections_;

  std::thread thread_;
};

HttpEndpoint::State::~State() {
  context_.stop();
  if (thread_.joinable()) thread_.join();
}

absl::Status HttpEndpoint::State::Listen() {
  error_code error;
  tcp::resolver resolver(context_);
  const auto addresses = resolver.resolve(options_.host, std::to_string(options_.port),
                                          tcp::resolver::passive | tcp::resolver::numeric_service, error);
  if (error || addresses.empty()) {
    return absl::InvalidArgumentError(absl::StrCat("--metrics-host, or --host without it: \"", options_.host,
                                                   "\" is no address, and no name of one: ", error.message()));
  }
  absl::Status status;
  for (const auto& address : addresses) {
    status = ListenAt(address.endpoint());
    if (status.ok()) break;
  }
  return status;
}

absl::Status HttpEndpoint::State::ListenAt(const tcp::endpoint& wanted) {
  error_code error;
  if (acceptor_.is_open()) acceptor_.close(error);
  const auto failed = [&](const char* what) {
    return absl::UnavailableError(
        absl::StrCat("metrics endpoint cannot ", what, " ", AddressText(wanted), ": ", error.message()));
  };
  acceptor_.open(wanted.protocol(), error);
  if (error) return failed("open a socket for");
  acceptor_.set_option(tcp::acceptor::reuse_address(true), error);
  if (error) return failed("set SO_REUSEADDR on");
  acceptor_.bind(wanted, error);
  if (error) return failed("bind");
  acceptor_.listen(asio::socket_base::max_listen_connections, error);
  if (error) return failed("listen on");
  bound_ = acceptor_.local_endpoint(error);
  if (error) return failed("find its own address at");
  return absl::OkStatus();
}

// Boost throws where memory runs out; that costs the operation at hand, not the endpoint.
void HttpEndpoint::State::Run() {
  for (;;) {
    try {
      if (!accepting_) Accept();
      context_.run();
      return;
    } catch (const std::exception&) {
      MakeRoom();
    }
  }
}

void HttpEndpoint::State::Accept() {
  acceptor_.async_accept([this](error_code error, tcp::socket socket) { OnAccept(error, std::move(socket)); });
  accepting_ = true;
}

void HttpEndpoint::State::OnAccept(error_code error, tcp::socket socket) {
  accepting_ = false;
  if (error) {
    MakeRoom();
    accept_pause_.expires_after(kAcceptPause);
    accept_pause_.async_wait([this](error_code) { Accept(); });
    accepting_ = true;
    return;
  }
  Accept();
  while (connections_.size() >= options_.max_connections) MakeRoom();
  const auto connection = std::make_shared<HttpConnection>(std::move(socket), this);
  connections_.push_back(connection);
  connection->Start();
}

HttpAnswer HttpEndpoint::State::Answer(std::string_view path) {
  HttpAnswer answer;
  const auto it = handlers_.find(std::string(path));
  if (it != handlers_.end()) {
    try {
      return it->second();
    } catch (const std::exception& error) {
      answer.status = 500;
      answer.body = absl::StrCat("The page could not be made: ", error.what(), "\n");
      return answer;
    }
  }
  answer.status = 404;
  answer.body = "Not found. Try:";
  for (const auto& [known, handler] : handlers_) answer.body += " " + known;
  answer.body += "\n";
  return answer;
}

void HttpEndpoint::State::OnAnswer(HttpConnection& connection) {
  const auto total_bytes = [this] {
    size_t bytes = 0;
    for (const auto& other : connections_) bytes += other->answer_bytes();
    return bytes;
  };
  const auto is_other_answer = [&](const HttpConnection& other) {
    return &other != &connection && other.answer_bytes() > 0;
  };
  while (total_bytes() > kMaxAnswerBytes && CloseOldest(is_other_answer)) {
  }
}

void HttpEndpoint::State::OnClosed(HttpConnection& connection) {
  connections_.remove_if([&](const auto& other) { return other.get() == &connection; });
}

// A request that is being answered is worth more than one that may never be complete.
void HttpEndpoint::State::MakeRoom() {
  if (CloseOldest([](const HttpConnection& connection) { return !connection.writing(); })) return;
  CloseOldest([](const HttpConnection&) { return true; });
}

bool HttpEndpoint::State::CloseOldest(const std::function<bool(const HttpConnection&)>& eligible) {
  std::shared_ptr<HttpConnection> oldest;  // outlives its place in the list
  for (const auto& connection : connections_) {
    if (eligible(*connection) && (oldest == nullptr || connection->since() < oldest->since())) oldest = connection;
  }
  if (oldest == nullptr) return false;
  oldest->Close();
  return true;
}

absl::StatusOr<std::unique_ptr<HttpEndpoint>> HttpEndpoint::Start(const HttpEndpointOptions& options,
                                                                  std::map<std::string, HttpHandler> handlers) {
  auto state = std::make_unique<State>(options, std::move(handlers));
  CADRE_RETURN_IF_ERROR(state->Listen());
  state->thread_ = std::thread([raw = state.get()] { raw->Run(); });
  return std::unique_ptr<HttpEndpoint>(new HttpEndpoint(std::move(state)));
}

HttpEndpoint::HttpEndpoint(std::unique_ptr<State> state) : state_(std::move(state)) {}
HttpEndpoint::~HttpEndpoint() = default;

uint16_t HttpEndpoint::port() const { return state_->bound_.port(); }
std::string HttpEndpoint::address() const { return AddressText(state_->bound_); }

}  // namespace cadre
