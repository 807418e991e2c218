import Scenarios
import Stage2Sim

/// A line of the file `trace_pipe` of an inspection tree.
struct TraceLine {
  /// The time, as the line has it.
  let time: String
  /// The name of the event.
  let name: String
  /// The text behind the name.
  let text: String

  /// Reads a line such as `virt-walkerd-12 [000] ..... 12.345678: kvm_exit: TRAP: ...`; nil for another line.
  init?(_ line: some StringProtocol) {
    guard let cpu = line.firstRange(of: "] ") else { return nil }
    // The flags are behind the CPU.
    let rest = line[cpu.upperBound...].drop { $0 != " " }.drop { $0 == " " }
    let parts = rest.split(separator: ": ", maxSplits: 2)
    guard parts.count >= 2 else { return nil }
    time = String(parts[0])
    name = String(parts[1])
    text = parts.count > 2 ? String(parts[2]) : ""
  }

  /// Whether the event is one of a guest that waits or that takes an interrupt. On a real kernel, they come all the time.
  var isOfIdleGuest: Bool {
    ["kvm_exit", "kvm_entry", "kvm_halt_poll_ns", "kvm_vcpu_wakeup", "kvm_wfx_arm64"].contains(name)
      || [
        "kvm_timer_", "kvm_get_timer_map", "kvm_arm_timer", "vgic_", "kvm_irq_line", "kvm_set_irq",
        "kvm_ack_irq",
      ]
      .contains { name.hasPrefix($0) }
  }

  /// The words of the text without the commas behind them.
  private var words: [Substring] {
    text.split(separator: " ").map { $0.last == "," ? $0.dropLast() : $0 }
  }

  /// The number behind a word of the text.
  private func number(after word: String) -> UInt64? {
    let words = words
    guard let index = words.firstIndex(where: { $0 == word }), index + 1 < words.count else {
      return nil
    }
    return Self.hexadecimalNumber(words[index + 1])
  }

  /// The number with or without `0x` in front.
  static func hexadecimalNumber(_ text: some StringProtocol) -> UInt64? {
    let digits = text.hasPrefix("0x") ? String(text.dropFirst(2)) : String(text)
    return UInt64(digits, radix: 16)
  }

  /// The registers of `kvm_guest_fault`.
  var fault: FaultInfo? {
    guard name == "kvm_guest_fault", let ipa = number(after: "ipa"),
      let syndrome = number(after: "hsr"), let far = number(after: "hxfar")
    else { return nil }
    return FaultInfo(
      syndrome: ExceptionSyndrome(rawValue: syndrome), far: GuestVirtualAddress(far),
      ipa: IntermediatePhysicalAddress(ipa))
  }

  /// The entry of `virt_walker_visit`.
  var visit: TableVisit? {
    guard name == "virt_walker_visit", let level = number(after: "level"), level <= 3,
      let table = number(after: "table"), let entry = number(after: "entry"),
      let index = words.firstIndex(of: "index").flatMap({ Int(words[($0 + 1)...].first ?? "") })
    else { return nil }
    return TableVisit(
      level: Int(level), table: PhysicalAddress(table), index: index,
      descriptor: Stage2Descriptor(rawValue: entry))
  }

  /// The byte of `virt_walker_hide` and of `virt_walker_seek`, and the entry after it.
  var byte: (byte: UInt8, entry: Stage2Descriptor)? {
    guard name == "virt_walker_hide" || name == "virt_walker_seek",
      let byte = number(after: "byte").flatMap({ UInt8(exactly: $0) }),
      let entry = words.last.flatMap({ Self.hexadecimalNumber($0) })
    else { return nil }
    return (byte, Stage2Descriptor(rawValue: entry))
  }
}

/// The entries in the file `walk` of an inspection tree.
enum WalkText {
  /// The entries from the start level down.
  static func entries(in text: String) -> [TableVisit] {
    let lines = text.split(separator: "\n", omittingEmptySubsequences: false)
    guard let head = lines.firstIndex(where: { $0.hasPrefix("level  table") }) else { return [] }
    return lines[(head + 1)...].prefix { !$0.isEmpty }.compactMap { line in
      let words = line.split(separator: " ")
      guard words.count > 4, let level = Int(words[0]), (0...3).contains(level),
        let table = TraceLine.hexadecimalNumber(words[1]), let index = Int(words[2]),
        let entry = TraceLine.hexadecimalNumber(words[3])
      else { return nil }
      return TableVisit(
        level: level, table: PhysicalAddress(table), index: index,
        descriptor: Stage2Descriptor(rawValue: entry))
    }
  }
}
