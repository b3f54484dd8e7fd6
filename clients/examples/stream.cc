// Streams a continuation: stream "Once upon a time" [address]
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <iostream>
#include <memory>
#include <string>

#include "cadre/v1/generation_service.grpc.pb.h"

int main(int argc, char** argv) {
  const std::string prompt = argc > 1 ? argv[1] : "Once upon a time";
  const std::string address = argc > 2 ? argv[2] : "127.0.0.1:50051";
  const auto channel = grpc::CreateChannel(address, grpc::InsecureChannelCredentials());
  const auto stub = cadre::v1::GenerationService::NewStub(channel);

  cadre::v1::GenerateRequest request;
  request.set_text(prompt);
  request.mutable_stopping()->set_max_tokens(64);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(60));

  const auto stream = stub->Generate(&context, request);
  cadre::v1::GenerateResponse event;
  while (stream->Read(&event)) {
    if (event.has_delta()) {
      std::cout << event.delta().text() << std::flush;
    } else if (event.has_finished()) {
      std::cout << event.finished().text() << "\n[" << event.finished().usage().generated_tokens() << " tokens]\n";
    }
  }
  const grpc::Status status = stream->Finish();
  if (status.ok()) return 0;
  std::cerr << "code " << status.error_code() << ": " << status.error_message() << "\n";
  return 1;
}
