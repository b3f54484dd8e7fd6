#include "server/http_endpoint.h"

#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace cadre {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

// A TCP connection to the loopback interface that does what it is told, however rude.
class Client {
 public:
  explicit Client(uint16_t port) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  Client(Client&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  ~Client() {
    if (fd_ >= 0) close(fd_);
  }

  bool Send(const std::string& bytes) {
    return send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(bytes.size());
  }

  // Bytes until the answer is complete by its Content-Length, the peer closes, or `limit` passes.
  std::string ReadAnswer(absl::Duration limit = absl::Seconds(5)) {
    const absl::Time end = absl::Now() + limit;
    std::string answer;
    while (!IsComplete(answer) && ReadSome(answer, end - absl::Now())) {
    }
    return answer;
  }

  // True when the peer closes within `limit`; what it still sends is thrown away.
  bool IsClosedWithin(absl::Duration limit) {
    const absl::Time end = absl::Now() + limit;
    std::string ignored;
    while (ReadSome(ignored, end - absl::Now())) ignored.clear();
    return closed_;
  }

 private:
  static bool IsComplete(const std::string& answer) {
    const size_t header_end = answer.find("\r\n\r\n");
    const size_t length = answer.find("Content-Length: ");
    if (header_end == std::string::npos || length == std::string::npos) return false;
    return answer.size() >= header_end + 4 + std::stoul(answer.substr(length + 16));
  }

  bool ReadSome(std::string& into, absl::Duration limit) {
    pollfd waiting{fd_, POLLIN, 0};
    if (poll(&waiting, 1, std::max<int>(0, static_cast<int>(absl::ToInt64Milliseconds(limit)))) <= 0) return false;
    char buffer[65536];
    const ssize_t bytes = recv(fd_, buffer, sizeof(buffer), 0);
    closed_ = bytes <= 0;
    if (bytes > 0) into.append(buffer, static_cast<size_t>(bytes));
    return bytes > 0;
  }

  int fd_;
  bool closed_ = false;
};

std::string Get(const std::string& path) { return "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n"; }

class HttpEndpointTest : public ::testing::Test {
 protected:
  void Start(HttpEndpointOptions options = {}) {
    auto endpoint =
        HttpEndpoint::Start(options, {{"/metrics",
                                       [] {
                                         return HttpAnswer{200, kPrometheusContentType, "up 1\n"};
                                       }},
                                      {"/large",
                                       [] {
                                         return HttpAnswer{200, "text/plain", std::string(16 << 20, 'x')};
                                       }},
                                      {"/broken", []() -> HttpAnswer { throw std::runtime_error("no memory"); }}});
    ASSERT_TRUE(endpoint.ok()) << endpoint.status();
    endpoint_ = *std::move(endpoint);
  }
  Client Connect() const { return Client(endpoint_->port()); }
  std::string Ask(const std::string& request) const {
    Client client = Connect();
    EXPECT_TRUE(client.Send(request));
    return client.ReadAnswer();
  }
  // The median of many whole scrapes, each over a new connection.
  absl::Duration MedianScrape() const {
    std::vector<absl::Duration> durations;
    for (int i = 0; i < 31; ++i) {
      const absl::Time start = absl::Now();
      EXPECT_THAT(Ask(Get("/metrics")), StartsWith("HTTP/1.1 200 OK\r\n"));
      durations.push_back(absl::Now() - start);
    }
    std::nth_element(durations.begin(), durations.begin() + 15, durations.end());
    return durations[15];
  }

  std::unique_ptr<HttpEndpoint> endpoint_;
};

TEST_F(HttpEndpointTest, AnswersGetAndHead) {
  Start();
  const std::string answer = Ask(Get("/metrics"));
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\n\r\nup 1\n"));
  EXPECT_THAT(Ask(Get("/metrics?collect[]=all")), HasSubstr("up 1\n"));

  Client client = Connect();
  client.Send("HEAD /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const std::string head = client.ReadAnswer(absl::Milliseconds(500));
  EXPECT_THAT(head, HasSubstr("Content-Length: 5\r\n"));
  EXPECT_THAT(head, Not(HasSubstr("up 1")));
  EXPECT_TRUE(client.IsClosedWithin(absl::Seconds(2)));
}

TEST_F(HttpEndpointTest, RefusesWhatItDoesNotDo) {
  Start();
  const std::string missing = Ask(Get("/metric"));
  EXPECT_THAT(missing, StartsWith("HTTP/1.1 404 "));
  EXPECT_THAT(missing, HasSubstr("/metrics"));
  const std::string post = Ask("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello");
  EXPECT_THAT(post, StartsWith("HTTP/1.1 405 "));
  EXPECT_THAT(post, HasSubstr("Allow: GET, HEAD\r\n"));
  EXPECT_THAT(Ask("GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(Ask("\x16\x03\x01 hello over TLS\r\n\r\n"), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(Ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), StartsWith("HTTP/1.1 400 "));
  EXPECT_THAT(Ask("GET /metrics HTTP/1.1\r\nX: " + std::string(9000, 'a') + "\r\n\r\n"), StartsWith("HTTP/1.1 431 "));
  EXPECT_THAT(Ask("GET /" + std::string(100000, 'a')), StartsWith("HTTP/1.1 431 "));
  const std::string broken = Ask(Get("/broken"));
  EXPECT_THAT(broken, StartsWith("HTTP/1.1 500 "));
  EXPECT_THAT(broken, HasSubstr("no memory"));
  EXPECT_THAT(Ask(Get("/metrics")), StartsWith("HTTP/1.1 200 "));
}

TEST_F(HttpEndpointTest, KeepsConnectionsAndTakesRequestsBackToBack) {
  Start();
  Client client = Connect();
  for (int i = 0; i < 3; ++i) {
    client.Send(Get("/metrics"));
    EXPECT_THAT(client.ReadAnswer(), HasSubstr("up 1"));
  }
  client.Send(Get("/metrics") + "GET /none HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  std::string both = client.ReadAnswer();
  if (both.find("404") == std::string::npos) both += client.ReadAnswer();
  EXPECT_THAT(both, HasSubstr("up 1"));
  EXPECT_THAT(both, HasSubstr("HTTP/1.1 404 "));
  EXPECT_TRUE(client.IsClosedWithin(absl::Seconds(2)));

  Client old = Connect();
  old.Send("GET /metrics HTTP/1.0\r\n\r\n");
  EXPECT_THAT(old.ReadAnswer(), HasSubstr("up 1"));
  EXPECT_TRUE(old.IsClosedWithin(absl::Seconds(2)));
}

// A connection that is closed while bytes are still coming in is reset, and a reset may overtake the answer.
TEST_F(HttpEndpointTest, ClientsThatGoOnSendingGetTheirAnswer) {
  Start();
  Client client = Connect();
  client.Send("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
  EXPECT_THAT(client.ReadAnswer(), StartsWith("HTTP/1.1 405 "));
  for (int i = 0; i < 10; ++i) {
    EXPECT_TRUE(client.Send(std::string(1000, 'x')));
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  // But not for ever.
  bool sent = true;
  for (int i = 0; i < 100 && sent; ++i) {
    sent = client.Send(std::string(1000, 'x'));
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  EXPECT_FALSE(sent);
}

TEST_F(HttpEndpointTest, StalledConnectionsDelayNobody) {
  Start();
  std::vector<Client> stalled;
  for (int count : {50, 200}) {
    while (static_cast<int>(stalled.size()) < count) {
      stalled.push_back(Connect());
      if (stalled.size() % 2 == 0) stalled.back().Send("GET /metrics HTTP/1.1\r\nHo");
    }
    EXPECT_LT(MedianScrape(), absl::Milliseconds(50)) << count << " stalled connections";
  }
}

TEST_F(HttpEndpointTest, TheOldestIncompleteConnectionMakesRoom) {
  HttpEndpointOptions options;
  options.max_connections = 8;
  Start(options);
  std::vector<Client> stalled;
  for (int i = 0; i < 8; ++i) {
    stalled.push_back(Connect());
    stalled.back().Send("GET /metrics HT");
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  Client scraper = Connect();
  scraper.Send(Get("/metrics"));
  EXPECT_THAT(scraper.ReadAnswer(), HasSubstr("up 1"));
  EXPECT_TRUE(stalled.front().IsClosedWithin(absl::Seconds(1)));
  // All others are still there.
  stalled.back().Send("TP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(stalled.back().ReadAnswer(), HasSubstr("up 1"));
  stalled[1].Send("TP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_THAT(stalled[1].ReadAnswer(), HasSubstr("up 1"));
}

TEST_F(HttpEndpointTest, TricklingDoesNotExtendTheTimeForAHeader) {
  HttpEndpointOptions options;
  options.header_timeout = absl::Milliseconds(300);
  Start(options);
  Client silent = Connect();
  Client trickling = Connect();
  const absl::Time start = absl::Now();
  trickling.Send("GET /metrics HTTP/1.1\r\nX: ");
  while (absl::Now() - start < absl::Milliseconds(600)) {
    trickling.Send("a");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_TRUE(trickling.IsClosedWithin(absl::Milliseconds(100)));
  EXPECT_TRUE(silent.IsClosedWithin(absl::Milliseconds(100)));
}

TEST_F(HttpEndpointTest, SlowReadersEndAndDelayNobody) {
  HttpEndpointOptions options;
  options.write_timeout = absl::Milliseconds(500);
  Start(options);
  Client slow = Connect();
  slow.Send(Get("/large"));
  EXPECT_LT(MedianScrape(), absl::Milliseconds(50));
  std::this_thread::sleep_for(std::chrono::milliseconds(700));
  EXPECT_LT(slow.ReadAnswer().size(), size_t{16 << 20});
}

TEST_F(HttpEndpointTest, AnswersThatNobodyReadsAreBounded) {
  HttpEndpointOptions options;
  options.write_timeout = absl::Seconds(60);
  Start(options);
  std::vector<Client> slow;
  for (int i = 0; i < 8; ++i) {  // 128 MiB, of which 64 MiB are allowed
    slow.push_back(Connect());
    slow.back().Send(Get("/large"));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  EXPECT_THAT(Ask(Get("/metrics")), HasSubstr("up 1"));
  EXPECT_LT(slow.front().ReadAnswer(absl::Seconds(60)).size(), size_t{16 << 20});
  EXPECT_GT(slow.back().ReadAnswer(absl::Seconds(60)).size(), size_t{16 << 20});
}

TEST_F(HttpEndpointTest, EndsWithConnectionsOpen) {
  Start();
  std::vector<Client> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(Connect());
    clients.back().Send(i % 2 == 0 ? "GET /metr" : Get("/large"));
  }
  const absl::Time start = absl::Now();
  endpoint_.reset();
  EXPECT_LT(absl::Now() - start, absl::Seconds(2));
  EXPECT_TRUE(clients.front().IsClosedWithin(absl::Seconds(1)));
}

TEST_F(HttpEndpointTest, AddressesAreCheckedAndTold) {
  Start();
  EXPECT_NE(endpoint_->port(), 0);
  EXPECT_EQ(endpoint_->address(), "127.0.0.1:" + std::to_string(endpoint_->port()));

  HttpEndpointOptions options;
  options.port = endpoint_->port();
  const auto taken = HttpEndpoint::Start(options, {});
  EXPECT_EQ(taken.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(taken.status().message()), HasSubstr(endpoint_->address()));
  EXPECT_THAT(std::string(taken.status().message()), HasSubstr("in use"));

  // A port is free again at once, even with connections of its last owner in TIME_WAIT.
  EXPECT_THAT(Ask(Get("/metrics")), HasSubstr("up 1"));
  endpoint_.reset();
  Start(options);

  options.host = "not-an-address";
  const auto invalid = HttpEndpoint::Start(options, {});
  EXPECT_EQ(invalid.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(invalid.status().message()), HasSubstr("not-an-address"));
}

TEST_F(HttpEndpointTest, ListensOnIpv6) {
  HttpEndpointOptions options;
  options.host = "::1";
  const auto endpoint = HttpEndpoint::Start(options, {});
  if (!endpoint.ok()) GTEST_SKIP() << "no IPv6 here: " << endpoint.status();
  EXPECT_EQ((*endpoint)->address(), "[::1]:" + std::to_string((*endpoint)->port()));
}

}  // namespace
}  // namespace cadre
