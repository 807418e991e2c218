import CharacterDeviceServer
import Glibc
import Inspection
import Scenarios
import Stage2Sim
import SystemPackage
import UserCode
import VirtWalkerDevice

/// The stops of a scenario: each event inside of its steps, forward and back (`replay --step`).
final class SingleStep {
  private let name: String
  private let tracer: StepTracer
  private let steps: [(line: Int, step: Step)]
  /// The number of the present stop, of those that the tracer has.
  private(set) var position = -1
  /// The tables at the present stop.
  private var state: TableState

  /// - Parameters:
  ///   - text: The scenario.
  ///   - hook: The user's hook; nil for the built-in one.
  init(_ text: ScenarioText, _ hook: HookRunner?) throws {
    name = text.name
    steps = try text.steps()
    do {
      tracer = try hook.makeTracer(text.machine)
    } catch let failure as CodeFailure {
      throw failure
    } catch {
      throw Failure("cannot run \(text.name): \(error)", status: .unavailable)
    }
    state = tracer.state
  }

  /// The present stop; nil before the first one, and in a scenario without steps.
  var stop: TracedEvent? { position < 0 ? nil : tracer.stops[position] }

  /// Goes to the next stop. The next step of the scenario is performed if there is no other stop.
  ///
  /// - Returns: False at the end of the scenario.
  func forward() throws -> Bool {
    if position + 1 == tracer.stops.count {
      guard tracer.stepCount < steps.count else { return false }
      try perform(steps[tracer.stepCount].step)
    }
    position += 1
    state.apply(tracer.stops[position])
    return true
  }

  /// Goes to the stop before. Returns false at the first one.
  func back() -> Bool {
    guard position > 0 else { return false }
    state.revert(tracer.stops[position])
    position -= 1
    return true
  }

  /// Goes on to a stop at which the next step begins, or to the last stop.
  func forwardStep() throws {
    while try forward() { if case .step = stop?.kind { return } }
  }

  /// Goes back to the stop at which the present step begins, or, from there, the step before.
  func backStep() {
    while back() { if case .step = stop?.kind { return } }
  }

  /// The line of the scenario with the present step, as `FILE:LINE: step N of M: TEXT`.
  var title: String {
    guard let stop else { return "\(name): no steps" }
    let step = steps[stop.step - 1]
    return "\(name):\(step.line): step \(stop.step) of \(steps.count): \(step.step)"
  }

  /// The text of a stop: its line, a little further right than the step's.
  private static func line(_ stop: TracedEvent) -> String {
    if case .step = stop.kind { "\(stop)" } else { "  \(stop)" }
  }

  /// Prints all stops.
  func printAll() throws {
    var output = ""
    while try forward() {
      guard let stop else { break }
      output += Self.line(stop) + "\n"
      if output.utf8.count > 1 << 16 {
        try write(output)
        output = ""
      }
    }
    try write(output)
  }

  /// Prints the writes and the invalidations of all steps for casemate.
  func printCasemateLog() throws {
    guard var log = CasemateLog(of: tracer.engine.virtualMachine.stage2) else {
      throw Failure(
        "cannot make a casemate log of \(name): casemate needs pages of 4K and a start level of 0 or 1: give granule=4K, and an ipa of at least 35",
        status: .unavailable)
    }
    for (line, step) in steps {
      let first = tracer.stops.count
      try perform(step)
      log.append(tracer.stops[first...], file: name, line: line)
      try write(log.takeText())
    }
  }

  private func perform(_ step: Step) throws {
    do {
      try tracer.perform(step)
    } catch {
      throw Failure("cannot run \(name): \(error)", status: .unavailable)
    }
  }

  // MARK: - The screen

  private static let keys =
    "n/space next  p previous  N next step  P step before  g start  G end  q quit"

  /// The rows of the screen: the stops around the present one, and the walk to its address as it is at that stop.
  func lines(columns: Int, rows: Int) -> [Line] {
    let walk = stop.map { tracer.walkText(of: $0.address, in: state) } ?? ""
    let below = walk.split(separator: "\n", omittingEmptySubsequences: false).map { Line($0) }
    let room = max(0, rows - 3)
    // The stops have at least a third of the screen, and what the walk leaves.
    let height = max(room / 3, room - below.count)
    let last = max(0, min(position + height / 2, tracer.stops.count - 1))
    let first = max(0, last - height + 1)
    var lines = [Line(title, .strong)]
    if !tracer.stops.isEmpty {
      lines += (first...min(first + height - 1, tracer.stops.count - 1)).map { index in
        let text = Self.line(tracer.stops[index])
        return Line((index == position ? "> " : "  ") + text, index == position ? .bar : .plain)
      }
    }
    lines += Array(repeating: Line(""), count: max(0, height + 1 - lines.count))
    lines.append(Line(String(repeating: "-", count: columns), .strong))
    lines += below.prefix(max(0, rows - 1 - lines.count))
    lines += Array(repeating: Line(""), count: max(0, rows - 1 - lines.count))
    return (lines.prefix(max(0, rows - 1)) + [Line(Self.keys, .bar)]).suffix(rows)
  }

  /// Shows the stops on the terminal until a key or a signal ends it.
  func run(on screen: Screen) throws {
    let loop = try EventLoop()
    func draw() {
      let size = screen.size
      screen.draw(
        lines(columns: size.columns, rows: size.rows)
          .map { $0.rendered(columns: size.columns, colours: Screen.hasColours) })
    }
    try screen.handleSignals(in: loop, draw)
    try loop.add(screen.descriptor) { [self] in
      guard let keys = screen.keys(), !keys.contains(UInt8(ascii: "q")) else { return loop.stop() }
      for key in keys { try press(key) }
      draw()
    }
    _ = try forward()
    screen.enter()
    defer { screen.leave() }
    draw()
    try loop.run()
  }

  private func press(_ key: UInt8) throws {
    switch key {
    case UInt8(ascii: "n"), UInt8(ascii: " "): _ = try forward()
    case UInt8(ascii: "p"): _ = back()
    case UInt8(ascii: "N"): try forwardStep()
    case UInt8(ascii: "P"): backStep()
    case UInt8(ascii: "g"): while back() {}
    case UInt8(ascii: "G"): while try forward() {}
    default: break
    }
  }
}
