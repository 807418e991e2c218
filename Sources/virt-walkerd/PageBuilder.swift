import Inspection
import Pages
import Scenarios
import Stage2Sim
import UserCode

/// The machines of a page that `replay` or `explain` makes.
struct PageBuilder {
  /// The most steps of all machines. A browser holds a page of this size easily.
  private static let mostSteps = 50_000

  private let hook: HookRunner?
  private var content = PageContent()
  private var steps = 0

  /// - Parameter hook: The user's hook; nil for the built-in one.
  init(_ hook: HookRunner?) { self.hook = hook }

  /// Plays a scenario.
  ///
  /// - Parameters:
  ///   - text: The scenario.
  ///   - kernel: The version of Linux; nil for that of the text.
  ///   - name: The name of the machine on the page.
  mutating func add(_ text: ScenarioText, on kernel: KernelVersion? = nil, named name: String)
    throws
  {
    var machine = text.machine
    if let kernel { machine.configuration.kernel = kernel }
    try add(machine, try text.steps(), named: name, notes: [])
  }

  /// Plays the steps of a machine that is at its start.
  mutating func add(
    _ machine: MachineDescription, _ steps: [Step], named name: String, notes: [String]
  ) throws {
    try add(machine, steps.map { (0, $0) }, named: name, notes: notes)
  }

  private mutating func add(
    _ machine: MachineDescription, _ steps: [(line: Int, step: Step)], named name: String,
    notes: [String]
  ) throws {
    self.steps += steps.count
    guard self.steps <= Self.mostSteps else {
      throw Failure(
        "a page has at most \(Self.mostSteps) steps, and \(name) would be beyond: divide it into more pages",
        status: .dataError)
    }
    do {
      let recorder = PageRecorder(try hook.makeTracer(machine))
      content.addMachine(name: name, description: "\(machine)", notes: notes)
      for (line, step) in steps { try recorder.perform(step, line: line, into: &content) }
    } catch let failure as CodeFailure {
      throw failure
    } catch {
      throw Failure("cannot run \(name): \(error)", status: .unavailable)
    }
  }

  /// Writes the page, and prints the number of its machines and steps.
  func write(to file: PageFile, title: String) throws {
    try file.replace(with: Page(content, title: title).html)
    try virt_walkerd.write(
      "\(file.path): \(count(content.machineCount, "machine")), \(count(steps, "step"))\n")
  }
}
