import CLinux
import CharacterDeviceServer
import Glibc
import SystemPackage

/// The daemon's end of a ``CodeBuilder``.
public final class CodeBuilderClient: CodeLauncher {
  /// An event of the builder.
  public enum Event: Hashable, Sendable {
    /// The files have changed, and were compiled: ``start(_:)`` starts the new programs. The text has the compiler's warnings.
    case built(messages: String)
    /// The files have changed, and cannot be compiled: ``start(_:)`` starts the old programs. The text has the reason.
    case failed(String)
    /// Something else that the user should know.
    case notice(String)
    /// The builder has ended, and all processes with the user's code with it.
    case end
  }

  /// A descriptor that is readable when there is an ``Event``.
  public let eventDescriptor: FileDescriptor
  /// The warnings of the compiler, and remarks, of the first compilation.
  public let messages: String
  /// Whether Landlock confines the compiler and the code.
  public let hasLandlock: Bool

  private let requests: FileDescriptor
  private let guardian: pid_t
  private var isFinished = false

  /// The longest time to wait for the first compilation, and for another answer, in seconds.
  private static let longestBuild: Int32 = 300
  private static let longestAnswer: Int32 = 60

  /// Starts a builder, and compiles the code. Call this while the process is still root, if it is, and has one thread.
  ///
  /// - Parameters:
  ///   - sources: The user's code.
  ///   - user: The user as whom the compiler and the code run; nil for the user of this process.
  ///   - program: The program that does the work of ``CodeBuilder`` if its only argument is ``CodeBuilder/command``.
  /// - Throws: ``CodeFailure``: the compiler's messages, or another reason why the code does not run.
  public init(
    _ sources: CodeSources, user: Sandbox.User?, program: FilePath = "/proc/self/exe"
  ) throws(CodeFailure) {
    let configuration = BuilderConfiguration(sources, user: user)
    do throws(Errno) {
      let (requests, theirs) = try SocketMessage.makeSockets()
      let (events, theirEvents) = try SocketMessage.makeSockets()
      defer {
        try? theirs.close()
        try? theirEvents.close()
      }
      do throws(Errno) {
        guardian = try Self.start(program, theirs, theirEvents)
      } catch {
        try? requests.close()
        try? events.close()
        throw error
      }
      self.requests = requests
      eventDescriptor = events
    } catch {
      throw CodeFailure("cannot start the code builder: \(error): end other processes")
    }
    let answer: SocketMessage?
    do throws(Errno) {
      try configuration.message.send(to: requests)
      answer = try SocketMessage(from: requests, within: Self.longestBuild)
    } catch {
      answer = nil
    }
    if let answer, answer.kind == "ready", answer.fields.count == 3 {
      hasLandlock = answer.fields[1] == "1"
      messages = answer.fields[2]
      return
    }
    hasLandlock = false
    messages = ""
    let reason =
      if let answer, answer.kind == "failed" { answer.fields[1] } else {
        "the code builder has ended early: the memory or the number of processes may be limited"
      }
    finish()
    throw CodeFailure(reason)
  }

  /// Starts a program as a builder.
  private static func start(
    _ program: FilePath, _ requests: FileDescriptor, _ events: FileDescriptor
  ) throws(Errno) -> pid_t {
    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    // The copies have high numbers, so that none of them is overwritten.
    let copies = [requests, events].map { fcntl($0.rawValue, F_DUPFD_CLOEXEC, 16) }
    defer { for copy in copies { close(copy) } }
    for (copy, number) in zip(copies, [CodeBuilder.requests, CodeBuilder.events]) {
      guard copy >= 0 else { throw .tooManyOpenFiles }
      posix_spawn_file_actions_adddup2(&actions, copy, number)
    }
    var child = pid_t()
    let result = withArgumentVector(["virt-walkerd", CodeBuilder.command]) {
      posix_spawn(&child, program.string, &actions, nil, $0, environ)
    }
    guard result == 0 else { throw Errno(rawValue: result) }
    return child
  }

  /// Ends the builder and all that it has started, and waits until its files are removed.
  public func finish() {
    guard !isFinished else { return }
    isFinished = true
    try? requests.close()
    try? eventDescriptor.close()
    _ = waitForEnd(of: guardian)
  }

  /// Reads the next event. Call this when ``eventDescriptor`` is readable. After ``Event/end``, there are no more.
  public func nextEvent() -> Event {
    guard let message = (try? SocketMessage(from: eventDescriptor)) ?? nil,
      message.fields.count == 2
    else { return .end }
    return message.kind == "built"
      ? .built(messages: message.fields[1]) : .failed(message.fields[1])
  }

  // MARK: - CodeLauncher

  public func start(_ kind: CodeKind) throws(CodeFailure) -> StartedCode {
    let answer = try ask(["start", kind.rawValue], "started", fields: 2, descriptors: 2)
    return StartedCode(
      memory: answer.descriptors[0], socket: answer.descriptors[1],
      process: Int32(answer.fields[1]) ?? -1)
  }

  public func makeTableMemory(size: Int) throws(CodeFailure) -> FileDescriptor {
    try ask(["memory", "\(size)"], "memory", fields: 1, descriptors: 1).descriptors[0]
  }

  public func isStopped(_ process: Int32) -> Bool {
    let answer = try? ask(["is-stopped", "\(process)"], "is-stopped", fields: 2, descriptors: 0)
    return answer?.fields[1] == "1"
  }

  public func end(_ process: Int32) -> CodeEnd {
    guard let answer = try? ask(["end", "\(process)"], "ended", fields: 3, descriptors: 0),
      let number = Int32(answer.fields[2])
    else { return .killed(signal: SIGKILL) }
    return answer.fields[1] == "exit" ? .exited(number) : .killed(signal: number)
  }

  public func places(of addresses: [UInt64], in process: Int32) -> [[SourcePlace]] {
    var places = [[SourcePlace]](repeating: [], count: addresses.count)
    guard !addresses.isEmpty,
      let answer = try? ask(
        ["places", "\(process)"] + addresses.map(String.init), "places", fields: nil,
        descriptors: 0)
    else { return places }
    var rest = answer.fields.dropFirst()
    for index in places.indices {
      guard let count = rest.popFirst().flatMap({ Int($0) }), rest.count >= 4 * count else { break }
      for _ in 0..<count {
        let fields = Array(rest.prefix(4))
        rest = rest.dropFirst(4)
        places[index].append(
          SourcePlace(
            function: fields[0], file: fields[1], line: Int(fields[2]) ?? 0,
            isUsers: fields[3] == "1"))
      }
    }
    return places
  }

  /// Sends a request, and waits for its answer.
  private func ask(
    _ request: [String], _ kind: String, fields: Int?, descriptors: Int
  ) throws(CodeFailure) -> SocketMessage {
    var answer: SocketMessage?
    if !isFinished {
      do throws(Errno) {
        try SocketMessage(request).send(to: requests)
        answer = try SocketMessage(from: requests, within: Self.longestAnswer)
      } catch {}
    }
    guard let answer else {
      throw CodeFailure("the code builder has ended or does not answer: restart the daemon")
    }
    if answer.kind == kind, answer.descriptors.count == descriptors,
      fields == nil || answer.fields.count == fields
    {
      return answer
    }
    for descriptor in answer.descriptors { try? descriptor.close() }
    throw CodeFailure(
      answer.kind == "failed" && answer.fields.count == 2
        ? answer.fields[1] : "the code builder has given a wrong answer: restart the daemon")
  }
}
