import CUserCode
import Stage2Sim
import SystemPackage

/// A process that runs a user's code, with the report of its mistakes.
final class CodeProcess {
  /// The code has ended by a mistake: each later call has this error, too.
  struct Ended: Error {}

  let kind: CodeKind
  /// A function that is called for each mistake.
  var onFinding: ((CodeFinding) -> Void)?
  /// A function that says whether an address is one that `ioremap()` has returned.
  var isDevice: (UInt64) -> Bool = { _ in false }
  /// The mistake that has ended the code.
  private(set) var fatal: CodeFinding?
  let channel: CodeChannel

  private let launcher: any CodeLauncher
  private let process: Int32
  private var hasEnded = false
  private var isInCall = false
  private var places: [UInt64: [SourcePlace]] = [:]
  private var known: Set<String> = []

  private static let startAgain = "Correct the source, and start again"
  private static let bootAnew = "Correct the source, then boot the machine anew by the file reset"

  /// The number of different mistakes that are told. A mistake that comes again is told once.
  private static let mostFindings = 100
  /// The number of addresses whose places are looked up while the code runs, and of those in one text. A look-up takes milliseconds, and
  /// the code can send any number of addresses.
  private static let mostPlaces = 150
  private static let mostPlacesInText = 8

  init(_ kind: CodeKind, _ launcher: any CodeLauncher) throws(CodeFailure) {
    self.kind = kind
    self.launcher = launcher
    let code = try launcher.start(kind)
    process = code.process
    do throws(CodeFailure) {
      channel = try CodeChannel(code)
    } catch {
      _ = launcher.end(code.process)
      throw error
    }
    channel.isStopped = { [launcher, process] in launcher.isStopped(process) }
  }

  deinit { end() }

  /// Ends the process.
  @discardableResult
  private func end() -> CodeEnd? {
    guard !hasEnded else { return nil }
    hasEnded = true
    return launcher.end(process)
  }

  /// Makes a call.
  ///
  /// - Parameters:
  ///   - log: Takes the lines of the kernel's log: those of the code, and those of this program about the code.
  ///   - event: Takes the visits and invalidations of a hook.
  ///   - answer: Answers the requests of the code.
  func call(
    _ call: channel_call, file: UInt64 = 0, number: UInt64 = 0,
    _ arguments: (UInt64, UInt64, UInt64, UInt64) = (0, 0, 0, 0),
    data: Span<UInt8> = Span(), log: (_ line: String, _ isOfCode: Bool) -> Void,
    event: (CodeRecord) -> Void = { _ in },
    answer: (channel_message) -> CodeChannel.Reply
  ) throws(Ended) -> channel_message {
    // The code has one call at a time, whatever is served while the daemon waits.
    guard fatal == nil, !isInCall else { throw Ended() }
    isInCall = true
    defer { isInCall = false }
    do throws(CodeChannel.Failure) {
      return try channel.call(call, file: file, call: number, arguments, data: data) { received in
        switch received {
        case .request(let message): return answer(message)
        case .record(.line(let text, _)): for line in CodeRecord.lines(text) { log(line, true) }
        case .record(.finding(let text, let pc)):
          guard known.count < Self.mostFindings else { break }
          let (place, backtrace) = find(pc == 0 ? [] : [pc])
          report(
            CodeFinding(kind: kind, text: resolve(text), place: place, backtrace: backtrace),
            log: { log($0, false) })
        case .record(let record): event(record)
        }
        return CodeChannel.Reply()
      }
    } catch {
      fail(error, isStarting: call == CHANNEL_START, log: { log($0, false) })
      throw Ended()
    }
  }

  /// Tells a mistake, unless the same one was told before.
  func report(_ finding: CodeFinding, log: (String) -> Void) {
    guard known.count < Self.mostFindings, known.insert("\(finding)").inserted else { return }
    for line in finding.logLines { log(line) }
    onFinding?(finding)
    if known.count == Self.mostFindings {
      log("the \(kind.rawValue) has \(known.count) different mistakes: no others are told")
    }
  }

  /// Ends the code for a reason that the daemon has found.
  func fail(
    _ failure: CodeChannel.Failure, isStarting: Bool = false, log: (String) -> Void
  ) {
    let fault: CodeFault
    switch failure {
    case .fault(let report): fault = CodeFault(report, in: kind, isDevice: isDevice)
    case .ended: fault = CodeFault(end() ?? .exited(0), of: kind)
    case .hung: fault = .hung(kind)
    case .broken(let problem): fault = .broken(problem, kind)
    }
    // The launcher knows the places of a process until its end.
    let (place, backtrace) = find(fault.frames, isLast: true)
    let finding = CodeFinding(
      kind: kind, isFatal: true, text: resolve(fault.text),
      advice: Self.sentences(
        resolve(fault.advice), isStarting ? Self.startAgain : Self.bootAnew), place: place,
      backtrace: backtrace)
    end()
    fatal = finding
    for line in finding.logLines { log(line) }
    onFinding?(finding)
  }

  private static func sentences(_ first: String, _ second: String) -> String {
    first.isEmpty ? second : first + (first.hasSuffix("?") ? " " : ". ") + second
  }

  /// A text with the user's lines for the addresses in it: the runtime writes an address as `[<401035>]`.
  private func resolve(_ text: String) -> String {
    guard text.contains("[<") else { return text }
    var result = ""
    var rest = text[...]
    var found = 0
    while found < Self.mostPlacesInText, let start = rest.firstRange(of: "[<") {
      found += 1
      result += rest[..<start.lowerBound]
      rest = rest[start.upperBound...]
      guard let end = rest.firstRange(of: ">]"),
        let address = UInt64(rest[..<end.lowerBound], radix: 16)
      else {
        result += "[<"
        continue
      }
      let place = find([address]).0
      result += place.map(\.position) ?? "[<\(rest[..<end.lowerBound])>]"
      rest = rest[end.upperBound...]
    }
    return result + rest
  }

  /// The place of an address in the user's source; nil if it is not in the user's code.
  func place(of address: UInt64) -> SourcePlace? { find([address]).0 }

  /// The place of the mistake in the user's source, and the functions that were running.
  private func find(
    _ frames: [UInt64], isLast: Bool = false
  ) -> (SourcePlace?, [SourcePlace]) {
    let missing = Set(frames).filter { places[$0] == nil }.sorted()
    if !missing.isEmpty, isLast || places.count < Self.mostPlaces {
      for (address, found) in zip(missing, launcher.places(of: missing, in: process)) {
        places[address] = found
      }
    }
    let all = frames.flatMap { places[$0] ?? [] }
    let first = all.firstIndex { $0.isUsers }
    // The user's functions, and the function of the kernel that the innermost one of them has called.
    let backtrace = all.indices.filter { all[$0].isUsers || $0 + 1 == first }.map { all[$0] }
    return (first.map { all[$0] }, backtrace)
  }
}
