import Scenarios
import Stage2Sim

extension TracedEvent: CustomStringConvertible {
  /// One line: a word for the kind, and the rest.
  public var description: String { "\(word.padding(to: 11))\(text)" }

  /// The word for the kind.
  package var word: String {
    switch kind {
    case .step: "step"
    case .event(.abort): "abort"
    case .event(.visit): "visit"
    case .event(.hook): "hook"
    case .event(.invalidation), .event(.localInvalidation), .event(.invalidationOfRange),
      .event(.invalidationOfAll):
      "tlbi"
    case .event(.dataCacheClean): "dcache"
    case .event(.instructionCacheInvalidation): "icache"
    case .event(.tracepoint): "tracepoint"
    case .event(.warning): "warning"
    case .event(.log(let message)): message.layer == .driver ? "guest log" : "host log"
    case .event(.text), .event(.traced), .event(.guestStopped): "event"
    case .line(_, let layer): layer == .driver ? "guest log" : "host log"
    case .call: "call"
    case .walk(.begin), .walk(.end): "walk"
    case .walk(.visit), .walk(.endOfVisit): "visit"
    case .write: "write"
    case .zeroed: "new table"
    case .violation: "violation"
    case .observation: "observed"
    case .more: "left out"
    }
  }

  package var text: String {
    switch kind {
    case .step(let step): "\(step)"
    case .event(.abort(let fault)): fault.explanation
    case .event(.log(let message)): "\(message)"
    case .event(.guestStopped): "the guest does not run any more"
    case .event(.tracepoint(let tracepoint)): "\(tracepoint.name): \(tracepoint)"
    case .event(.visit(let visit)): "the hook comes to \(visit.place) \(visit.descriptor)"
    case .event(.hook(.byteWritten(let byte, let old, let new))):
      "byte \(hex(UInt64(byte), digits: 2)) is hidden: \(old) -> \(new)"
    case .event(.hook(.byteRead(let byte, let entry))):
      "byte \(hex(UInt64(byte), digits: 2)) is found in \(entry)"
    case .event(.invalidation(let ipa, let level)):
      "\(hex(ipa)), \(level == 0 ? "any level" : "level \(level)"), all CPUs"
    case .event(.localInvalidation(let ipa, let level)):
      "\(hex(ipa)), \(level == 0 ? "any level" : "level \(level)"), this CPU"
    case .event(.invalidationOfRange(let ipa, let pages)):
      "\(pages) pages from \(hex(ipa)), all CPUs"
    case .event(.invalidationOfAll): "all entries of the VM, all CPUs"
    case .event(.dataCacheClean(let physical, let size)),
      .event(.instructionCacheInvalidation(let physical, let size)):
      "\(hex(size)) bytes from \(hex(physical))"
    case .event(.warning(let warning)): "\(warning)"
    case .event(let event): event.traceText
    case .line(let text, _): text
    case .call(let function): function.rawValue
    case .walk(.begin(let visitor, let start, let end)): "\(visitor): \(hex(start))-\(hex(end))"
    case .walk(.visit(let visit, let kind, _)):
      "\(kind.kernelWord) \(visit.place) \(visit.descriptor)"
    case .walk(.endOfVisit), .walk(.end): ""
    case .write(let write):
      "\(write.level.map { "level \($0)" } ?? "entry") at \(hex(write.address)): \(write.old) -> \(write.new)"
    case .zeroed(let page): "the page \(hex(page)) is cleared"
    case .violation(let violation): "break-before-make: \(violation)"
    case .observation(let observation): "\(observation)"
    case .more(let count): "\(count) more events: make the range of the step smaller"
    }
  }
}

extension TableVisit {
  /// The level of the entry, and its place in its table.
  fileprivate var place: String { "level \(level), \(hex(table))[\(index)]:" }
}

extension WalkFlags {
  /// The name of the kind of a visit, as in `enum kvm_pgtable_walk_flags`.
  fileprivate var kernelWord: String {
    switch self {
    case .tablePre: "TABLE_PRE"
    case .tablePost: "TABLE_POST"
    default: "LEAF"
    }
  }
}

extension ExceptionSyndrome {
  /// The kind of the fault in words.
  var statusWords: String {
    switch faultStatus {
    case .translation: "translation fault"
    case .accessFlag: "access flag fault"
    case .permission: "permission fault"
    case .addressSize: "address size fault"
    case nil: "another status"
    }
  }
}

extension FaultInfo {
  /// The registers, and their meaning.
  package var explanation: String {
    var words = [
      syndrome.isInstructionAbort ? "instruction abort" : "data abort",
      "\(syndrome.statusWords), level \(syndrome.faultLevel)",
    ]
    if !syndrome.isInstructionAbort {
      words.append(syndrome.isWrite ? "write" : "read")
      words.append(
        syndrome.isValid
          ? "\(syndrome.accessSize) \(syndrome.accessSize == 1 ? "byte" : "bytes"), register \(syndrome.register)"
          : "no syndrome")
    }
    return
      "ESR_EL2 \(syndrome) FAR_EL2 \(hex(far.rawValue)) HPFAR_EL2 \(hex(hpfar)): \(words.joined(separator: ", "))"
  }
}

extension String {
  /// The text with spaces behind it, and at least one.
  fileprivate func padding(to width: Int) -> String {
    self + String(repeating: " ", count: max(1, width - utf8.count))
  }
}
