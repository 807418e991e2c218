import NIOConcurrencyHelpers
import NIOCore
import NIOHTTP1
import NIOPosix
import Pages

/// The server of the page: HTTP/1.1 on one thread. The first part of a path is a secret, which tells the rights of the reader.
struct PageServer: Sendable {
  /// The most connections. Others are closed at once.
  static let mostConnections = 64
  /// The largest body of a request.
  static let mostBytes = 1 << 14
  /// The time in which a request has to be complete, and an answer has to be read.
  static let patience = TimeAmount.seconds(30)
  /// The time for which a watcher waits for a new step.
  static let wait = TimeAmount.seconds(20)

  let state: LiveState
  let files: TreeFiles
  /// The secret of those who may see the machine.
  let watchSecret: String
  /// The secret of those who may control the machine; nil if nobody may.
  let controlSecret: String?
  /// The thread on which lines for `control` wait for the machine.
  let worker = NIOThreadPool(numberOfThreads: 1)
  private let connections = NIOLockedValueBox(0)

  init(state: LiveState, files: TreeFiles, watchSecret: String, controlSecret: String?) {
    self.state = state
    self.files = files
    self.watchSecret = watchSecret
    self.controlSecret = controlSecret
  }

  /// Serves at a socket that listens.
  func start(on socket: Int32, group: MultiThreadedEventLoopGroup) throws -> any Channel {
    worker.start()
    return try ServerBootstrap(group: group).childChannelInitializer { channel in
      channel.eventLoop.makeCompletedFuture {
        let isAllowed = connections.withLockedValue { count in
          guard count < Self.mostConnections else { return false }
          count += 1
          return true
        }
        guard isAllowed else {
          channel.close(promise: nil)
          return
        }
        channel.closeFuture.whenComplete { _ in connections.withLockedValue { $0 -= 1 } }
        let port = channel.localAddress?.port ?? 0
        try channel.pipeline.syncOperations.configureHTTPServerPipeline(withErrorHandling: true)
        try channel.pipeline.syncOperations.addHandler(RequestHandler(self, port: port))
      }
    }.withBoundSocket(socket).wait()
  }

  /// The answer to a request.
  struct Answer: Sendable {
    var status = HTTPResponseStatus.ok
    var type = "text/plain; charset=utf-8"
    var text = ""
  }

  /// The rights of a path, and the rest of the path; nil for a path without a secret.
  func rights(of path: String) -> (mayControl: Bool, rest: String)? {
    let parts = path.split(separator: "/", maxSplits: 1, omittingEmptySubsequences: true)
    guard path.hasPrefix("/"), let secret = parts.first.map(String.init) else { return nil }
    let rest = String(path.dropFirst(1 + secret.utf8.count))
    if let controlSecret, Self.isSame(secret, controlSecret) { return (true, rest) }
    if Self.isSame(secret, watchSecret) { return (false, rest) }
    return nil
  }

  /// Compares all bytes, so that the time does not tell how many are right.
  private static func isSame(_ text: String, _ secret: String) -> Bool {
    guard text.utf8.count == secret.utf8.count else { return false }
    return zip(text.utf8, secret.utf8).reduce(0) { $0 | ($1.0 ^ $1.1) } == 0
  }

  /// Performs lines of `control`, or a reset, on the worker.
  func perform(_ lines: String, on loop: any EventLoop) -> EventLoopFuture<Answer> {
    let (files, state) = (files, state)
    return worker.runIfActive(eventLoop: loop) {
      do {
        guard lines == "\(LiveControl.reset)\n" else {
          return Answer(text: try files.perform(lines))
        }
        try files.performReset()
        state.takeReset(walk: try files.readWalk())
        return Answer(text: "\(LiveControl.reset)\n  the machine was booted anew\n")
      } catch {
        return Answer(status: .internalServerError, text: "control: \(error)\n")
      }
    }
  }
}
