// cadre chat: a conversation with the model.

#include <CLI/CLI.hpp>
#include <atomic>
#include <chrono>
#include <csignal>
#include <iostream>
#include <memory>
#include <string>
#include <thread>

#include "cadre/v1/generation_service.grpc.pb.h"
#include "tools/chat/chat_session.h"
#include "tools/chat/line_reader.h"
#include "tools/client.h"
#include "tools/commands.h"
#include "tools/generate_options.h"
#include "tools/generation_printer.h"
#include "tools/text_io.h"

namespace cadre {
namespace {

struct ChatFlags {
  GenerateOptions options;
  std::string system;
};

std::atomic<bool> interrupted{false};

// Without SA_RESTART, so that what waits looks at once.
void HandleInterrupt() {
  struct sigaction action {};
  action.sa_handler = [](int) { interrupted = true; };
  sigaction(SIGINT, &action, nullptr);
}

// Cancels a call when Ctrl-C is pressed, which a handler must not do itself.
class InterruptWatch {
 public:
  explicit InterruptWatch(grpc::ClientContext* context)
      : thread_([this, context] {
          while (!is_over_) {
            if (interrupted) {
              context->TryCancel();
              return;
            }
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
          }
        }) {}
  ~InterruptWatch() {
    is_over_ = true;
    thread_.join();
  }
  InterruptWatch(const InterruptWatch&) = delete;
  InterruptWatch& operator=(const InterruptWatch&) = delete;

 private:
  std::atomic<bool> is_over_{false};
  std::thread thread_;
};

class Chat {
 public:
  Chat(const ChatFlags& flags, const ClientOptions& client)
      : flags_(flags),
        client_(client),
        stub_(v1::GenerationService::NewStub(OpenChannel(client))),
        reader_(MakeLineReader(&interrupted)),
        session_(flags.options.request) {
    session_.SetSystemMessage(flags.system);
  }

  int Run() {
    if (reader_->is_interactive()) std::cout << "Ctrl-D ends, Ctrl-C stops an answer, /help lists the commands\n";
    while (true) {
      std::string line;
      const LineReader::Result result = reader_->Read(session_.is_continued() ? "... " : "> ", &line);
      if (result == LineReader::Result::kInterrupted) {
        interrupted = false;
        session_.DropPending();
        continue;
      }
      const bool is_end = result == LineReader::Result::kEnd;
      if (!Act(is_end ? session_.OnEnd() : session_.OnLine(line)) || is_end) break;
    }
    if (reader_->is_interactive()) std::cout << std::endl;
    // A person has read what failed; a script is told.
    return reader_->is_interactive() ? int{kExitOk} : exit_code_;
  }

 private:
  // False: the conversation is over.
  bool Act(const ChatStep& step) {
    if (!step.notice.empty()) std::cerr << WithoutControlCharacters(step.notice) << "\n";
    switch (step.kind) {
      case ChatStep::Kind::kNothing:
        return true;
      case ChatStep::Kind::kQuit:
        return false;
      case ChatStep::Kind::kSave:
        Save(step.argument);
        return true;
      case ChatStep::Kind::kSend:
        break;
    }
    Answer();
    return true;
  }

  void Save(const std::string& path) {
    const absl::Status status = WriteFile(path, session_.ToJson());
    std::cerr << (status.ok() ? path + " written" : std::string(status.message())) << "\n";
    if (!status.ok()) exit_code_ = kExitFailed;
  }

  void Answer() {
    const auto context = MakeContext(flags_.options.timeout);
    const v1::GenerateRequest request = session_.Request();
    const auto stream = stub_->Generate(context.get(), request);
    std::string answer;
    bool is_finished = false;
    {
      const InterruptWatch watch(context.get());
      for (v1::GenerateResponse event; stream->Read(&event);) {
        const std::string& text = event.has_delta() ? event.delta().text() : event.finished().text();
        answer += text;
        is_finished = is_finished || event.has_finished();
        std::cout << (client_.json ? ToJsonLine(event) : ForStdout(text)) << std::flush;
      }
    }
    if (!client_.json && (!answer.empty() || is_finished)) std::cout << std::endl;
    const grpc::Status status = stream->Finish();
    const bool was_interrupted = interrupted.exchange(false);
    if (is_finished || !answer.empty()) {
      session_.OnAnswer(answer);
    } else {
      session_.OnFailure();
    }
    if (status.error_code() == grpc::StatusCode::CANCELLED && was_interrupted) {
      std::cerr << "[stopped]\n";
    } else if (!status.ok()) {
      exit_code_ = ReportError(status, client_.address);
    }
  }

  const ChatFlags& flags_;
  const ClientOptions& client_;
  const std::unique_ptr<v1::GenerationService::Stub> stub_;
  const std::unique_ptr<LineReader> reader_;
  ChatSession session_;
  int exit_code_ = kExitOk;
};

int RunChat(ChatFlags& flags, const ClientOptions& client) {
  if (const absl::Status status = CompleteGenerateOptions(flags.options); !status.ok()) {
    std::cerr << "cadre: " << status.message() << "\n";
    return kExitUsage;
  }
  HandleInterrupt();
  return Chat(flags, client).Run();
}

}  // namespace

void AddChatCommand(CLI::App& app, const ClientOptions& client, int* exit_code) {
  auto flags = std::make_shared<ChatFlags>();
  CLI::App* command = app.add_subcommand("chat", "Talk to the model; from a pipe, each line is a message");
  command->add_option("--system", flags->system, "How the model should behave");
  AddGenerateOptions(*command, flags->options);
  command->callback([flags, &client, exit_code] { *exit_code = RunChat(*flags, client); });
}

}  // namespace cadre
