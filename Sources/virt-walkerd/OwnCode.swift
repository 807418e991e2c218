import CharacterDeviceServer
import Logging
import SystemPackage
import UserCode

/// The user's own code behind the nodes of a daemon.
final class OwnCode {
  /// The part that compiles and starts the code.
  let builder: CodeBuilderClient
  private let log = Logger(label: "code")

  /// Compiles the code, and logs the compiler's warnings.
  init(_ sources: CodeSources, user: Sandbox.User?) throws(CodeFailure) {
    builder = try CodeBuilderClient(sources, user: user)
    logMessages(builder.messages, at: .warning)
    if !builder.hasLandlock {
      log.warning(
        "this kernel has no Landlock: an #include of the code can read each file that the user of the daemon can read"
      )
    }
  }

  /// Takes the events of the builder.
  ///
  /// - Parameter bootAnew: A function that boots the machine of each node anew, with the new code.
  func watch(in loop: EventLoop, bootAnew: @escaping () throws -> Void) throws(Errno) {
    try loop.add(builder.eventDescriptor) { [self] in
      switch builder.nextEvent() {
      case .built(let messages):
        logMessages(messages, at: .warning)
        do {
          try bootAnew()
          log.notice("the files have changed: the new code runs")
        } catch {
          log.error(
            "the files have changed, and the new code does not start: correct it, and it is tried again"
          )
        }
      case .failed(let reason):
        logMessages(reason, at: .error)
        log.error("the files have changed, and do not compile: the old code goes on")
      case .end:
        loop.remove(builder.eventDescriptor)
        log.error(
          "the process that compiles and starts the code was killed, and the code with it: restart the daemon"
        )
      }
    }
  }

  /// Ends all processes of the code.
  func finish() { builder.finish() }

  private func logMessages(_ text: String, at level: Logger.Level) {
    for line in text.split(separator: "\n") { log.log(level: level, "\(line)") }
  }
}
