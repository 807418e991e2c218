import CharacterDeviceServer
import Scenarios
import Stage2Sim
import SystemPackage

/// Somebody who writes lines of the language of scenarios (docs/scenario.md) to the control file: steps without the first
/// line of a scenario, as the machine is there already.
final class ControlWriter: CommandWriter {
  private unowned let target: any ControlTarget
  /// The beginning of a line that the next write goes on with.
  private var pending: [UInt8] = []

  /// Programs write through buffers of whole pages.
  private static let page = 4096

  init(_ target: any ControlTarget) { self.target = target }

  /// The lines of one write(2): all of them, or, where one is not in the language, none and `EINVAL`.
  ///
  /// A line may end with the write. Only where whole pages were written, by a program that has filled a buffer, does it
  /// go on in the next.
  func write(_ bytes: Span<UInt8>) -> (any CommandWork)? {
    var text = pending
    pending = []
    for index in bytes.indices { text.append(bytes[index]) }
    if bytes.count % Self.page == 0 {
      let end = (text.lastIndex(of: UInt8(ascii: "\n")) ?? -1) + 1
      // One byte more than a line may have is enough to see that it is too long.
      pending = Array(text[end...].prefix(Scenario.maximumLineLength + 1))
      text.removeLast(text.count - end)
    }
    return work(text)
  }

  /// The rest has no newline. Nobody is left to tell that it was wrong, but who reads the control file.
  func finish() -> (any CommandWork)? {
    defer { pending = [] }
    return work(pending)
  }

  private func work(_ text: [UInt8]) -> (any CommandWork)? {
    guard !text.isEmpty else { return nil }
    // The rest of a line belongs to the lines that were not done.
    return ControlWork(text, target) { [weak self] in self?.pending = [] }
  }
}

/// The receiver of the lines of a ``ControlWriter``.
protocol ControlTarget: AnyObject {
  /// Nanoseconds since some moment.
  var now: UInt64 { get }
  /// The CPU time of this thread, in nanoseconds.
  var cpuTime: UInt64 { get }
  /// How often the machine was booted.
  var boots: Int { get }

  /// Performs a step, and asks now and then in the middle of a long one whether it may go on.
  ///
  /// - Parameter completion: Called once, before `perform` returns or later.
  func perform(
    _ step: Step, while goesOn: @escaping () -> Bool,
    completion: @escaping (Result<[Observation], EngineFailure>) -> Void)

  /// The control file says this from now on.
  func show(_ result: FileText)
}

/// The lines of one write to the control file: they are read, and then their steps are done, a few at a time.
final class ControlWork: CommandWork {
  private unowned let target: any ControlTarget
  private let onFailure: () -> Void
  /// The bytes that are not read yet.
  private var unread: ArraySlice<ArraySlice<UInt8>>
  private var lines: [Scenario.Line] = []
  /// The index of the line that is next.
  private var next = 0
  private var stepsDone = 0
  private var result = ControlResult()
  private var deadline: UInt64?
  private var boots: Int?
  /// Whether the engine performs a step.
  private var isInStep = false
  private var isInterrupted = false
  /// Whether the step goes on after ``proceed()`` has returned. The server does not call it any more after an interrupt.
  private var isWaiting = false
  /// The reason why the engine has not performed a step.
  private var failure: EngineFailure?
  var onReady: (() -> Void)?

  /// The CPU time that one write may take from its first step on, in seconds.
  private static let timeLimit: UInt64 = 10
  /// About a millisecond's, most of them being of some microseconds.
  private static let linesAtOnce = 128
  private static let partTime: UInt64 = 1_000_000

  init(_ text: [UInt8], _ target: any ControlTarget, onFailure: @escaping () -> Void) {
    self.target = target
    self.onFailure = onFailure
    unread = text.split(separator: UInt8(ascii: "\n"), omittingEmptySubsequences: false)[...]
    if unread.last?.isEmpty == true { unread.removeLast() }
  }

  func proceed() -> CommandProgress {
    guard unread.isEmpty else {
      do throws(ScenarioError) {
        try readSome()
        return .unfinished
      } catch {
        onFailure()
        target.show(FileText("\("\(error)".printable)\n"))
        return .failed(.invalidArgument)
      }
    }
    return playSome()
  }

  func interrupt() {
    isInterrupted = true
    onFailure()
    // A step that is being performed ends first.
    if !isInStep, unread.isEmpty { end("its writer was interrupted") }
  }

  // MARK: - The lines

  private func readSome() throws(ScenarioError) {
    for _ in 0..<Self.linesAtOnce {
      guard let bytes = unread.popFirst() else { return }
      try read(bytes)
    }
  }

  private func read(_ bytes: ArraySlice<UInt8>) throws(ScenarioError) {
    let number = lines.count + 1
    let line = String(decoding: bytes, as: UTF8.self)
    try Scenario.checkLength(bytes.count, line: number)
    guard !Scenario.Line.isComment(bytes) else {
      lines.append(Scenario.Line(text: line, content: .comment))
      return
    }
    if bytes.starts(with: "machine ".utf8) {
      throw ScenarioError(
        line: number, column: 1,
        message:
          "expected guest or host: the machine runs already; virt-walkerd replay plays a scenario on one of its own"
      )
    }
    let step = try Step(parsing: line, line: number)
    lines.append(Scenario.Line(text: line, content: .step(step)))
  }

  // MARK: - The steps

  private func playSome() -> CommandProgress {
    let start = target.now
    if deadline == nil {
      deadline = target.cpuTime + Self.timeLimit * 1_000_000_000
      boots = target.boots
    }
    var now = start
    while next < lines.count {
      if let failure {
        end("\(failure)")
        return .failed(.ioError)
      }
      if target.boots != boots {
        end("the machine was booted anew")
        return .failed(.canceled)
      }
      if isInterrupted {
        end("its writer was interrupted")
        return .failed(.interrupted)
      }
      if target.cpuTime >= deadline! {
        end("a write may take \(Self.timeLimit) s of CPU time at most")
        return .failed(.timedOut)
      }
      guard now - start < Self.partTime else { return .unfinished }
      let line = lines[next]
      result.append(line.text.printable)
      if case .step(let step) = line.content {
        perform(step)
        if isInStep {
          isWaiting = true
          return .waiting
        }
      } else {
        next += 1
      }
      now = target.now
    }
    target.show(result.text)
    return .finished
  }

  private func perform(_ step: Step) {
    isInStep = true
    let completion = { [self] (performed: Result<[Observation], EngineFailure>) in
      isInStep = false
      switch performed {
      case .success(let observations):
        for seen in observations { result.append("  \(seen)") }
        stepsDone += 1
        next += 1
      case .failure(let reason): failure = reason
      }
      if isWaiting, isInterrupted { end("its writer was interrupted") }
      isWaiting = false
      onReady?()
    }
    target.perform(step, while: { [unowned self] in goesOn }, completion: completion)
  }

  private var goesOn: Bool { !isInterrupted && target.cpuTime < deadline! }

  /// Says in the control file why not all was done.
  private func end(_ reason: String) {
    onFailure()
    let steps = lines.count { if case .step = $0.content { true } else { false } }
    result.append(
      "# The write has ended early: \(reason). Steps done: \(stepsDone) of \(steps). The first line that was not done is line \(next + 1): write the rest once more."
    )
    target.show(result.text)
  }
}

/// The lines that the control file says, as many as there is room for.
private struct ControlResult {
  private var bytes: [UInt8] = []
  private var linesLeftOut = 0

  private static let maximumSize = 8 << 20

  mutating func append(_ line: String) {
    guard linesLeftOut == 0, bytes.count + line.utf8.count < Self.maximumSize else {
      linesLeftOut += 1
      return
    }
    bytes += line.utf8
    bytes.append(UInt8(ascii: "\n"))
  }

  var text: FileText {
    guard linesLeftOut > 0 else { return FileText([bytes[...]]) }
    let note =
      "# \(linesLeftOut) more lines are left out: this file has at most \(Self.maximumSize >> 20) MiB.\n"
    return FileText([bytes[...], Array(note.utf8)[...]])
  }
}

/// A file whose writes are each a command by itself.
final class SingleCommandWriter: CommandWriter {
  private let perform: (Span<UInt8>) throws(Errno) -> Void

  init(_ perform: @escaping (Span<UInt8>) throws(Errno) -> Void) { self.perform = perform }

  func write(_ bytes: Span<UInt8>) throws(Errno) -> (any CommandWork)? {
    try perform(bytes)
    return nil
  }

  func finish() -> (any CommandWork)? { nil }
}
