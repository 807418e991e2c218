import Inspection
import Scenarios
import Stage2Sim
import VirtWalkerDevice

/// The page of a machine that runs, from the texts of its inspection tree. A step of the page is an access or a step of `control`: all
/// events of one time, and those from an exit of the guest to the next entry. On a real kernel, each event has a time of its own.
public struct LivePage: Sendable {
  /// The most steps that are kept. Then the page begins anew, so that a page of many days stays small.
  static let mostSteps = 2000

  private let title: String
  private let description: String
  private let configuration: VirtualMachine.Configuration
  private var content = PageContent()
  /// The sizes of the content after each step.
  private var sizes: [PageContent.Size] = []
  /// A number for the content, which changes when the page begins anew.
  public private(set) var epoch = 0
  private var path: [TableVisit] = []
  /// Lines of the guest's log whose step has not come yet.
  private var guestLines: [(time: String, text: String)] = []

  /// The lines since an exit of the guest whose entry has not come.
  private var openLines: [TraceLine] = []

  /// Whether a step has begun that has no end yet. An empty trace in the next ``take(trace:guestLog:walk:)`` ends it.
  public var hasOpenStep: Bool { !openLines.isEmpty }

  /// The number of steps.
  public var stepCount: Int { sizes.count }

  /// - Parameters:
  ///   - title: The title, such as the path of the node.
  ///   - description: The machine in words.
  ///   - configuration: The machine, for the meaning of entries.
  public init(title: String, description: String, configuration: VirtualMachine.Configuration) {
    self.title = title
    self.description = description
    self.configuration = configuration
    begin()
  }

  private mutating func begin() {
    content = PageContent()
    content.addMachine(name: title, description: description)
    sizes = []
    epoch += 1
  }

  /// Takes new lines.
  ///
  /// - Parameters:
  ///   - trace: The new lines of `trace_pipe`.
  ///   - guestLog: The new lines of `guest/dmesg_pipe`.
  ///   - walk: The present text of `walk`.
  /// - Returns: Whether there is a new step.
  public mutating func take(trace: String, guestLog: String, walk: String) -> Bool {
    guestLines += guestLog.split(separator: "\n").compactMap { line in
      guard line.hasPrefix("["), let end = line.firstIndex(of: "]") else { return nil }
      let time = line[..<end].dropFirst().drop { $0 == " " }
      return (String(time), String(line[end...].dropFirst(2)))
    }
    let present = WalkText.entries(in: walk)
    let groups = steps(in: trace).filter { !$0.allSatisfy(\.isOfIdleGuest) }
    for (index, group) in groups.enumerated() {
      add(group, endingAt: index == groups.count - 1 ? present : nil)
    }
    guard groups.isEmpty else { return true }
    guard stepCount == 0 else { return false }
    path = present
    add(PageStep(text: "the machine as it is now"), from: present)
    return true
  }

  /// The lines of each step that has ended.
  private mutating func steps(in trace: String) -> [[TraceLine]] {
    var steps: [[TraceLine]] = []
    var step = openLines
    openLines = []
    /// The guest has exited, and has not entered since.
    var isOutside = !step.isEmpty
    for line in trace.split(separator: "\n").compactMap({ TraceLine($0) }) {
      if let last = step.last, last.time != line.time, !isOutside {
        steps.append(step)
        step = []
      }
      step.append(line)
      if line.name == "kvm_exit" { isOutside = true }
      if line.name == "kvm_entry" { isOutside = false }
    }
    if isOutside, !trace.isEmpty {
      openLines = step
    } else if !step.isEmpty {
      steps.append(step)
    }
    return steps
  }

  /// Adds the step of a write to `reset`, which has no event in the trace.
  ///
  /// - Parameter walk: The present text of `walk`.
  public mutating func takeReset(walk: String) {
    path = WalkText.entries(in: walk)
    add(PageStep(text: "the machine was booted anew"), from: path)
  }

  private mutating func add(_ lines: [TraceLine], endingAt present: [TableVisit]?) {
    var step = PageStep(text: Self.title(of: lines))
    var before = path
    let visits = lines.compactMap(\.visit)
    if !visits.isEmpty {
      // A hook can walk more than once: the last walk has the last entries.
      let start = visits.lastIndex { $0.level == visits[0].level } ?? 0
      before = Array(visits[start...])
      path = before
    }
    for line in lines {
      if let fault = line.fault, !fault.ipa.isOfRecorder {
        step.aborts.append(
          PageStep.Abort(
            syndrome: DecodedWord(fault.syndrome), far: DecodedWord(far: fault.far),
            hpfar: DecodedWord(hpfar: fault.hpfar, of: fault)))
      }
      if let (_, entry) = line.byte, let last = path.last {
        path[path.count - 1] = TableVisit(
          level: last.level, table: last.table, index: last.index, descriptor: entry)
      }
      switch line.name {
      case "console": step.hostLog.append(line.text)
      case "virt_walker_tlbi": step.invalidations.append(line.text)
      case "virt_walker_warning": step.warnings.append(line.text)
      default: break
      }
      if step.events.count < PageRecorder.mostEvents {
        step.events.append(Self.event(line))
      }
    }
    if let present { path = present }
    if let time = lines.last?.time {
      let lines = guestLines.prefix { $0.time <= time || $0.time.utf8.count < time.utf8.count }
      step.guestLog = lines.map(\.text)
      guestLines.removeFirst(lines.count)
    }
    add(step, from: before)
  }

  private mutating func add(_ step: PageStep, from before: [TableVisit]) {
    var step = step
    if let first = walk(before), let last = walk(path) { step.walks = [(first, last)] }
    if sizes.count == Self.mostSteps { begin() }
    content.add(step)
    sizes.append(content.size)
  }

  private func walk(_ path: [TableVisit]) -> PageStep.Walk? {
    path.isEmpty ? nil : PageStep.Walk(path, to: HideSeek.target, on: configuration)
  }

  /// The event as a page shows it.
  private static func event(_ line: TraceLine) -> PageStep.Event {
    let words = [
      "virt_walker_visit": "visit", "virt_walker_hide": "hook", "virt_walker_seek": "hook",
      "virt_walker_tlbi": "tlbi", "virt_walker_dcache": "dcache", "virt_walker_icache": "icache",
      "virt_walker_warning": "warning", "console": "host log",
    ]
    return PageStep.Event(
      depth: 0, word: words[line.name] ?? "tracepoint",
      text: words[line.name] == nil ? "\(line.name): \(line.text)" : line.text)
  }

  private static func title(of lines: [TraceLine]) -> String {
    for line in lines {
      if let (byte, _) = line.byte {
        let what = line.name == "virt_walker_hide" ? "hidden" : "found"
        return "byte \(hex(UInt64(byte), digits: 2))\(character(byte)) is \(what)"
      }
    }
    let faults = lines.compactMap(\.fault)
    if let fault = faults.first(where: { !$0.ipa.isOfRecorder }) {
      return "\(DecodedWord(fault.syndrome).summary), at \(hex(fault.ipa))"
    }
    guard faults.isEmpty else { return "a step of control without an abort" }
    return (lines.first { !$0.isOfIdleGuest } ?? lines[0]).name
  }

  private static func character(_ byte: UInt8) -> String {
    (0x20...0x7e).contains(byte) ? " '\(Character(UnicodeScalar(byte)))'" : ""
  }

  /// The page with the present content.
  ///
  /// - Parameter controls: The buttons; empty if the reader may not control the machine.
  public func html(controls: [LiveControl]) -> String {
    var page = Page(content, title: title)
    page.live = Page.Live(epoch: epoch, controls: controls)
    return page.html
  }

  /// The content since a step, in JSON.
  ///
  /// - Parameters:
  ///   - epoch: The number of the content that the reader has.
  ///   - step: The number of steps that the reader has.
  /// - Returns: The whole content if the page has begun anew.
  public func changes(sinceEpoch epoch: Int, step: Int) -> String {
    let isSame = epoch == self.epoch && (1...max(1, sizes.count)).contains(step)
    let json = content.json(since: isSame ? sizes[step - 1] : PageContent.Size())
    return "{\"epoch\":\(self.epoch),\"isNew\":\(!isSame),\"content\":\(json)}"
  }
}

/// A button of a live page: a line for `control`, or ``reset``.
public struct LiveControl: Hashable, Sendable {
  /// The words on the button.
  public let label: String
  /// The line that the button writes.
  public let line: String

  /// The line that boots the machine anew: a write to the file `reset`.
  public static let reset = "reset"

  /// The buttons that a page has.
  public static let all = [
    LiveControl(label: "Guest loads", line: "guest ldr w0,[0x40000000]"),
    LiveControl(
      label: "Guest stores an instruction", line: "guest str w0,[0x40000000] x0=0xf900013f"),
    LiveControl(label: "Guest executes", line: "guest fetch 0x40000000"),
    LiveControl(label: "Hide 'A'", line: "guest strb w0,[0x0b000000] x0=0x41"),
    LiveControl(label: "Hide 0x04", line: "guest strb w0,[0x0b000000] x0=0x4"),
    LiveControl(label: "Seek", line: "guest ldrb w0,[0x0b000001]"),
    LiveControl(label: "Drop the page", line: "host madvise dontneed 0x40000000 0x1000"),
    LiveControl(label: "Make the page old", line: "host age 0x40000000"),
    LiveControl(label: "Dirty log on", line: "host dirty-log on"),
    LiveControl(label: "Dirty log off", line: "host dirty-log off"),
    LiveControl(label: "Boot anew", line: reset),
  ]
}
