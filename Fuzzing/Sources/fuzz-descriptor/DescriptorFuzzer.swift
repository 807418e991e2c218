import FuzzSupport
import Scenarios
import VirtWalkerDevice

@testable import Inspection
@testable import Stage2Sim

/// Puts arbitrary entries into stage 2 of a machine, uses them, and formats them. Encoding the decoded fields of an
/// entry gives the entry again. A copy of the machine does not change.
@_cdecl("LLVMFuzzerTestOneInput")
func test(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  var input = InputReader(bytes)
  let granule = input.next(of: Granule.allCases)
  var machine: VirtualMachine
  let engine: ModelEngine
  do {
    let configuration = VirtualMachine.Configuration(
      cpu: input.next(of: CPUModel.allCases), granule: granule,
      ipaBits: input.next(of: [32, 36, 40]),
      backing: input.next(of: Backing.allCases), memorySize: 1 << 30)
    machine = try .bootedWithHideSeek(configuration)
    engine = try ModelEngine(MachineDescription(configuration), eventCapacity: 1)
  } catch {
    fatalError("the machine cannot be made: \(error)")
  }
  let snapshot = machine
  let before = snapshot.stage2.memory.words
  let limit = 64
  for _ in 0..<limit where !input.isAtEnd { machine.doOneThing(&input) }
  check(snapshot.stage2.memory.words == before, "a copy has changed with its original")
  engine.virtualMachine = machine
  let report = WalkReport(of: engine, last: nil)
  check(report.text.utf8.count < 1 << 14, "the text is too long: \(report.text)")
  check(report.drawing.hasSuffix("</svg>\n"), "the drawing is not complete: \(report.drawing)")
  check(engine.dump.utf8.count < 1 << 20, "the dump is too long")
  return 0
}

/// Replaces the leaf by an entry.
private struct Replacement: Stage2Visitor {
  static let flags = WalkFlags.leaf
  let entry: UInt64

  mutating func visit(_ visit: Visit, in table: inout Stage2PageTable) {
    let old = table[visit.entry]
    var new = Stage2Descriptor(rawValue: entry)
    checkFields(of: new, level: visit.level, granule: table.granule)
    // The kernel makes a table entry only for a page that is a table.
    if new.isTable(level: visit.level) { new.rawValue &= ~Stage2Descriptor.tableOrPage }
    table[visit.entry] = new
    table[visit.entry].hiddenByte = old.hiddenByte
    check(table[visit.entry].hiddenByte == old.hiddenByte, "the byte is not hidden in \(new)")
    table[visit.entry].hiddenByte = new.hiddenByte
    check(table[visit.entry] == new, "hiding a byte changes other bits of \(new)")
  }
}

func checkFields(of entry: Stage2Descriptor, level: Int, granule: Granule) {
  check(UInt64("\(entry)", radix: 16) == entry.rawValue, "\(entry) is printed incorrectly")
  let attributes = KernelVersion.standard.leafAttributes
  guard entry.isLeaf(level: level) else { return }
  let made = Stage2Descriptor(
    leafAt: level, mapping: entry.outputAddress(granule), attributes: entry.rawValue & attributes,
    granule: granule)
  check(
    made.rawValue == entry.rawValue & (granule.addressMask | attributes | 3),
    "\(entry) is made as \(made)")
}

extension VirtualMachine {
  /// Performs one action of a guest, its host or a hook.
  fileprivate mutating func doOneThing(_ input: inout InputReader) {
    let granule = configuration.granule
    let pages: [UInt64] = [0, 1, 2, 15, 16, 511, 512, 513]
    let offset = input.next(of: pages) * granule.pageSize
    let address = HideSeek.target + offset
    let size = input.next(of: pages) * granule.pageSize
    // An error of the kernel is a valid outcome.
    switch input.next(UInt8.self) % 10 {
    case 0...2:
      var replacement = Replacement(entry: input.next())
      try? stage2.walk(address: address, size: granule.pageSize, visitor: &replacement)
    case 3: run(.access(.load(.word, to: 0), address: .init(flat: address)))
    case 4: run(.access(.store(.word, from: 0), address: .init(flat: address)))
    case 5: run(.nop, at: .init(flat: address))
    case 6: _ = try? HideSeek.walk(hiding: input.next(), at: address, in: &stage2)
    case 7: try? advise(input.next(of: MemoryAdvice.allCases), offset..<offset + size)
    case 8: try? stage2.unmap(address: address, size: size)
    default: try? stage2.writeProtect(address: address, size: size)
    }
  }
}
