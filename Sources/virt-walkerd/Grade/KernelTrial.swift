import KernelEngine
import Scenarios
import Stage2Sim
import SystemPackage
import UserCode
import VirtWalkerDevice

/// A trial on the real kernel.
final class KernelTrial: Trial {
  private let engine: KernelEngine
  private let log: KernelLog
  private var ownFindings: [CodeFinding] = []

  /// SLUB checks the bytes around and in freed memory, and knows the caller of each allocation: `slub_debug=` of the kernel's command line.
  static let guestArguments = "slub_debug=FZPU"

  init(_ engine: KernelEngine, _ log: KernelLog) {
    self.engine = engine
    self.log = log
  }

  /// The kernel does not tell.
  var hookHasAbort: Bool { true }

  var findings: [CodeFinding] {
    guard hasStopped, !isRefused else { return log.findings + ownFindings }
    // The kernel's own words about its end are better than those about the machine's.
    let own = CodeFinding(kind: .module, isFatal: true, text: engine.stopReason)
    guard var last = log.findings.last else { return ownFindings + [own] }
    last = CodeFinding(kind: last.kind, isFatal: true, text: last.text, place: last.place)
    return log.findings.dropLast() + [last] + ownFindings
  }

  var hasStopped: Bool { engine.guestStop != nil }
  var leaf: Leaf? { engine.leaf(for: HideSeek.target) }

  func open() throws(Errno) { engine.close(try engine.openDevice()) }

  func write(_ bytes: [UInt8], hasBadBuffer: Bool) throws(Errno) -> Int {
    try call { () throws(Errno) in
      let file = try engine.openDevice()
      defer { engine.close(file) }
      return try engine.write(bytes, to: file, hasBadBuffer: hasBadBuffer)
    }
  }

  func read(_ count: Int, hasBadBuffer: Bool) throws(Errno) -> [UInt8] {
    try call { () throws(Errno) in
      let file = try engine.openDevice()
      defer { engine.close(file) }
      return try engine.read(count, from: file, hasBadBuffer: hasBadBuffer)
    }
  }

  /// A call that does not end is a mistake that the kernel does not tell.
  private func call<Result>(_ body: () throws(Errno) -> Result) throws(Errno) -> Result {
    do throws(Errno) {
      return try body()
    } catch {
      if error == .timedOut {
        ownFindings.append(
          CodeFinding(kind: .module, isFatal: true, text: "a call of the module does not end"))
      }
      throw error
    }
  }

  /// Whether KVM_RUN has failed or told an exit that the monitor does not have. A hook may refuse an access in this way.
  private var isRefused: Bool { engine.stopReason.hasPrefix("KVM_RUN ") }

  func make(_ access: GuestAccess) throws(TrialFailure) -> UInt64? {
    if isRefused {
      do {
        try engine.boot(engine.machine)
      } catch {
        throw TrialFailure(description: "\(error)")
      }
    }
    do throws(Errno) {
      guard let value = access.value else {
        return try engine.load(size: access.size, at: access.address)
      }
      try engine.store(value, size: access.size, at: access.address)
      return nil
    } catch {
      if isRefused { return nil }
      throw TrialFailure(description: hasStopped ? engine.stopReason : "the access fails: \(error)")
    }
  }

  func unload() -> [CodeFinding] {
    let before = findings.count
    do throws(KernelEngine.ModuleFailure) {
      ownFindings += try engine.unloadModules().map(Self.finding)
    } catch {
      ownFindings.append(CodeFinding(kind: .module, text: "\(error)"))
    }
    return Array(findings.dropFirst(before))
  }

  /// The mistake of a module that has left something behind.
  private static func finding(_ left: String) -> CodeFinding {
    let words = left.split(separator: " ").map(String.init)
    let text =
      switch (words.first, words.count) {
      case ("device", 2): "rmmod: the device \(words[1]) is still registered"
      case ("mapping", 2):
        "rmmod: the registers at \(words[1]) are still mapped: iounmap() is missing"
      case ("memory", 3): "memory leak: \(words[1]) objects of \(words[2]) are not freed"
      default: "rmmod: the module has left behind: \(left)"
      }
    return CodeFinding(kind: .module, text: text)
  }

  func reload() throws(TrialFailure) {
    do throws(KernelEngine.ModuleFailure) {
      _ = try engine.unloadModules()
      try engine.loadModules()
    } catch {
      throw TrialFailure(description: "\(error)")
    }
  }

  /// The engine boots another guest for the next trial.
  func end() {}
}

/// The mistakes that the logs of two kernels tell.
final class KernelLog {
  private(set) var findings: [CodeFinding] = []
  /// The names of the files with the code, for messages.
  var files: [CodeKind: String] = [:]
  /// The number of the next lines that belong to the last mistake, for each kernel.
  private var rest: [CodeKind: Int] = [:]

  /// The longest report of a kernel in lines.
  private static let longestReport = 80
  /// The words with which the kernel begins a report (lib/bug.c, arch/arm64/mm/fault.c, kernel/panic.c and others).
  private static let beginnings = [
    "BUG: ", "BUG ", "WARNING: ", "Unable to handle kernel", "Internal error: ", "Kernel panic",
    "UBSAN: ",
    "KASAN: ", "INFO: task ", "rcu: INFO: ", "watchdog: BUG: ", "kernel BUG at ",
    "Unexpected kernel BRK",
    "Insufficient stack space", "Unhandled fault", "Slab corruption",
  ]

  /// Forgets the mistakes of the machine before.
  func clear() {
    findings = []
    rest = [:]
  }

  /// Takes a line of a kernel's log, without its time.
  func take(_ line: String, _ layer: EventLayer) {
    let kind = layer == .driver ? CodeKind.module : .hook
    if let left = rest[kind], left > 0 {
      rest[kind] = line.hasPrefix("---[ end trace") ? 0 : left - 1
      if let index = findings.lastIndex(where: { $0.kind == kind }), findings[index].place == nil,
        let place = place(in: line, kind)
      {
        let old = findings[index]
        findings[index] = CodeFinding(kind: kind, text: old.text, place: place)
      }
      return
    }
    guard Self.beginnings.contains(where: { line.hasPrefix($0) }) else { return }
    rest[kind] = Self.longestReport
    findings.append(CodeFinding(kind: kind, text: line, place: place(in: line, kind)))
  }

  /// The place that a line names: `pc : FUNCTION+0x10/0x20 [MODULE]`.
  private func place(in line: String, _ kind: CodeKind) -> SourcePlace? {
    guard line.hasPrefix("pc : ") else { return nil }
    let function = line.dropFirst("pc : ".count).prefix { $0 != " " }
    let isUsers = kind == .hook || line.contains("[")
    return SourcePlace(
      function: String(function), file: isUsers ? files[kind] ?? "" : "the kernel", line: 0,
      isUsers: isUsers)
  }
}
