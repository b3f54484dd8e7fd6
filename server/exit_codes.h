// How the server ends. Values follow sysexits.h where it has one; README.md explains each to operators.
#ifndef CADRE_SERVER_EXIT_CODES_H_
#define CADRE_SERVER_EXIT_CODES_H_

#include "absl/status/status.h"

namespace cadre {

enum ExitCode : int {
  kExitOk = 0,            // drained after SIGTERM or SIGINT
  kExitUsage = 64,        // a flag, environment variable or config file is wrong
  kExitNoModel = 66,      // the model folder or a file of it is missing
  kExitPortTaken = 69,    // a port cannot be listened on
  kExitInternal = 70,     // a mistake of ours
  kExitNoDevice = 71,     // the device asked for cannot be used, or failed while the model was loaded
  kExitDeviceLost = 74,   // the device failed while serving; another process may find it well
  kExitNoMemory = 75,     // the model does not fit into this machine's memory, or an allocation failed while serving
  kExitBadModel = 78,     // a file of the model is damaged, inconsistent or not supported
  kExitSignalBase = 128,  // + signal number: ended at once by a second signal
};

// For an error of loading a model.
inline ExitCode LoadErrorExitCode(const absl::Status& status) {
  switch (status.code()) {
    case absl::StatusCode::kNotFound:
      return kExitNoModel;
    case absl::StatusCode::kOutOfRange:  // an option asks for more than the model has
      return kExitUsage;
    case absl::StatusCode::kResourceExhausted:
      return kExitNoMemory;
    case absl::StatusCode::kUnavailable:  // the device failed
      return kExitNoDevice;
    case absl::StatusCode::kInternal:
    case absl::StatusCode::kUnknown:
      return kExitInternal;
    default:
      return kExitBadModel;
  }
}

}  // namespace cadre

#endif  // CADRE_SERVER_EXIT_CODES_H_
