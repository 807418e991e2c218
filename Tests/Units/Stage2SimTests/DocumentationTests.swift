import Foundation
import Stage2Sim
import Testing
import VirtWalkerDevice

private let sources = URL(filePath: #filePath).deletingLastPathComponent()
  .deletingLastPathComponent().deletingLastPathComponent().deletingLastPathComponent()
  .appending(path: "Sources")

/// The code of the articles in Sources/Stage2Sim/Stage2Sim.docc, compiled and run.
@Suite struct ArticleTests {
  @Test func program() throws {
    var machine = try VirtualMachine(.init(cpu: .cortexA76, backing: .anonymous))
    let memory = VirtualMachine.Configuration.memoryBase
    // LDR X0, [X1]; STR X0, [X1, #8]; STR X0, [X9]
    for (index, word) in [0xf940_0020, 0xf900_0420, 0xf900_0120].enumerated() {
      try machine.write(UInt64(word), to: memory + 4 * UInt64(index), count: 4)
    }
    try machine.write(42, to: memory + 0x1000, count: 8)
    machine.setRegister(1, to: memory.rawValue + 0x1000)
    machine.setRegister(9, to: 0x0c00_0000)
    // Stage 1 is off: the virtual address is the same number.
    let code = GuestVirtualAddress(flat: memory)

    let exit = MMIOExit(isWrite: true, address: 0x0c00_0000, length: 8, data: 42)
    #expect(machine.run(at: code) == .mmio(exit))
    machine.completeMMIO()
    #expect(machine.vcpu.pc == code + 12)
    #expect(try machine.read(memory + 0x1008, count: 8) == 42)
  }

  @Test func oneInstruction() throws {
    var machine = try VirtualMachine.booted()
    let address = VirtualMachine.Configuration.memoryBase + 0x1000
    machine.setRegister(3, to: 0x1_2345_6789)
    #expect(machine.run(.access(.store(.word, from: 3), address: .init(flat: address))) == .retired)
    #expect(machine.run(.access(.load(.byte, to: 4), address: .init(flat: address))) == .retired)
    #expect(machine.vcpu[4] == 0x89)

    // A machine is a value, so the copy is independent.
    var copy = machine
    try copy.write(0, to: address, count: 4)
    #expect(try machine.read(address, count: 4) == 0x2345_6789)
  }

  @Test func device() throws {
    var machine = try VirtualMachine.booted()
    machine.register(Counter(), at: [MMIORegion(address: 0x0900_0000, length: 8)])
    for _ in 1...3 { machine.run(.access(.load(.word, to: 3), address: 0x0900_0000)) }
    #expect(machine.vcpu[3] == 3)
    #expect(machine.vcpu.fault.syndrome.description == "0x93830005")
  }

  @Test func hook() throws {
    var machine = try VirtualMachine.booted()
    machine.add(LevelHook())
    machine.run(.access(.load(.byte, to: 3), address: 0x0900_0000))
    #expect(machine.vcpu[3] == 2)
  }

  @Test func whatCannotBeMade() {
    #expect(throws: KernelError.invalidArgument) {
      try VirtualMachine(.init(memorySize: 1 << 20))
    }
    #expect(throws: KernelError.badAddress) {
      try VirtualMachine(.init(ipaBits: 32, memorySize: 8 << 30))
    }
  }

  @Test func mapAndUnmap() throws {
    var table = Stage2PageTable(granule: .kib4, ipaBits: 40)
    try table.map(
      address: 0x4000_0000, size: 4 << 20, physical: 0x8000_0000, protection: [.read, .write])
    let leaf = try table.leaf(for: 0x4020_1234)
    #expect(leaf.level == 2)
    #expect(leaf.descriptor.description == "00400000802007fd")
    #expect(table.referenceCounts(for: 0x4020_1234) == [2, 3])

    #expect(
      throws: Stage2Error(
        .tryAgain, address: 0x4020_0000, level: 2,
        entry: Stage2Descriptor(rawValue: 0x0040_0000_8020_07fd))
    ) {
      try table.map(
        address: 0x4020_0000, size: 2 << 20, physical: 0x8020_0000, protection: [.read])
    }
    try table.relaxPermissions(address: 0x4020_0000, protection: [.execute])
    #expect(try table.leaf(for: 0x4020_0000).descriptor.isExecutable)

    try table.unmap(address: 0x4000_0000, size: 0x1000)
    #expect(table.referenceCounts(for: 0x4000_0000) == [2, 2])
    try table.unmap(address: 0x4020_0000, size: 0x1000)
    #expect(table.referenceCounts(for: 0x4000_0000) == [1])
  }

  @Test func walk() throws {
    var machine = try VirtualMachine.booted()
    let memory = VirtualMachine.Configuration.memoryBase
    machine.run(.access(.store(.byte, from: 0), address: .init(flat: memory + 64 << 20)))
    var writable = WritableMemory()
    try machine.stage2.walk(address: memory, size: 256 << 20, visitor: &writable)
    #expect(writable.size == 6 << 20)
  }

  @Test func traceRing() throws {
    var traced = try VirtualMachine.bootedWithHideSeek()
    let ring = EventStream(capacity: 1024)
    traced.events = ring
    let registers = traced.ioremap(HideSeek.hideAddress, size: 2) ?? 0
    try traced.writeb(0x41, to: registers)
    let hide = ring[ring.end - 2].event
    guard case .hook(.byteWritten(0x41, old: _, new: let entry)) = hide else {
      throw KernelError.noEntry
    }
    #expect(entry.hiddenByte == 0x41 && ring.counts.aborts == 1)
  }

  @Test func abortsAndWarnings() throws {
    var machine = try VirtualMachine.booted(.init(backing: .anonymous))
    let events = Events()
    machine.observer = events
    let address = VirtualMachine.Configuration.memoryBase + 0x5008
    machine.run(.access(.load(.word, to: 0), address: .init(flat: address)))
    machine.run(.access(.store(.word, from: 0), address: .init(flat: address)))

    #expect(events.aborts.map(\.syndrome.faultStatus) == [.translation, .permission, .permission])
    #expect(events.aborts.map(\.syndrome.faultLevel) == [3, 3, 3])
    #expect(events.aborts.map(\.syndrome.isWrite) == [false, true, true])
    #expect(events.aborts.allSatisfy { $0.ipa == address && $0.hpfar == 0x40_0050 })

    try machine.stage2.hide(0x04, at: VirtualMachine.Configuration.memoryBase)
    let result = machine.run(.nop, at: .init(flat: VirtualMachine.Configuration.memoryBase))
    let fault = try #require(events.aborts.last)
    #expect(result == .livelock(fault))
    #expect(fault.syndrome.faultStatus == .permission && fault.syndrome.isInstructionAbort)
    #expect(events.warnings.last == .livelock(fault))

    let before = machine.stage2.referenceCounts(for: address + 0x1000)
    try machine.stage2.hide(0x41, at: address + 0x1000)
    guard case .missingReference(let change) = events.warnings.last else {
      throw KernelError.noEntry
    }
    #expect(change.old.rawValue == 0 && change.new.hiddenByte == 0x41)
    #expect(machine.stage2.referenceCounts(for: address + 0x1000) == before)
  }

  @Test func hostMemory() throws {
    var machine = try VirtualMachine.booted(.init(backing: .anonymous))
    let page = VirtualMachine.Configuration.memoryBase + 0x3000
    machine.setRegister(0, to: 7)
    machine.run(.access(.store(.word, from: 0), address: .init(flat: page)))
    #expect(try machine.leaf(for: page).descriptor.protection.contains([.read, .write]))

    try machine.advise(.dontNeed, 0x3000..<0x4000)
    #expect(try !machine.leaf(for: page).descriptor.isValid)
    #expect(machine.run(.access(.load(.word, to: 1), address: .init(flat: page))) == .retired)
    #expect(machine.vcpu[1] == 0)

    try machine.protect(0x3000..<0x4000, .readOnly)
    let store = GuestInstruction.access(.store(.word, from: 0), address: .init(flat: page))
    #expect(machine.run(store) == .failed(.badAddress))
    try machine.protect(0x3000..<0x4000, .readWrite)
    #expect(machine.run(store) == .retired)

    let frame = try machine.leaf(for: page).descriptor.outputAddress(.kib4)
    try machine.fork()
    #expect(try !machine.leaf(for: page).descriptor.isValid)
    #expect(machine.run(store) == .retired)
    #expect(try machine.leaf(for: page).descriptor.outputAddress(.kib4) != frame)
    machine.endFork()

    try machine.writeRAM(7, to: 0x4000, count: 4)
    try machine.advise(.mergeable, 0x3000..<0x5000)
    try machine.mergeEqualPages()
    for address in [page, page + 0x1000] {
      machine.run(.access(.load(.word, to: 1), address: .init(flat: address)))
    }
    let merged = try machine.leaf(for: page).descriptor
    #expect(try machine.leaf(for: page + 0x1000).descriptor == merged)
    #expect(!merged.protection.contains(.write))

    let slot = machine.slots[VirtualMachine.memorySlot]
    try machine.setMemoryRegion(
      MemorySlot(
        id: slot.id, ipa: slot.ipa, size: slot.size, userspaceAddress: slot.userspaceAddress,
        flags: .logDirtyPages))
    machine.run(store)
    #expect(try machine.dirtyLog(ofSlot: slot.id)[0] == 1 << 3)
    #expect(try machine.dirtyLog(ofSlot: slot.id)[0] == 0)

    try machine.age(0x3000)
    var isYoung = machine.stage2.isYoung(address: page)
    #expect(!isYoung)
    machine.run(.access(.load(.word, to: 1), address: .init(flat: page)))
    #expect(machine.vcpu.fault.syndrome.faultStatus == .accessFlag)
    isYoung = machine.stage2.isYoung(address: page)
    #expect(isYoung)
  }
}

/// Counts how often the guest reads it.
struct Counter: MMIODevice {
  var reads: UInt64 = 0

  mutating func access(
    _ access: MMIOAccess, from vcpu: inout VCPU, kvm: inout KVM
  ) throws(KernelError) -> MMIOResponse {
    guard !access.isWrite else { return .done }
    reads += 1
    return .value(reads)
  }
}

struct LevelHook: MMIOHook {
  mutating func ioMemAbort(
    _ access: MMIOAccess, vcpu: inout VCPU, kvm: inout KVM
  ) throws(KernelError) -> MMIOHookResult {
    guard access.address == 0x0900_0000, !access.isWrite else { return .notHandled }
    do {
      let leaf = try kvm.stage2.leaf(for: VirtualMachine.Configuration.memoryBase)
      vcpu[access.register] = UInt64(leaf.level)
    } catch {
      throw error.code
    }
    vcpu.incrementPC()
    return .handled
  }
}

/// The size of the memory in a range that the guest may write.
struct WritableMemory: Stage2Visitor {
  static let flags = WalkFlags.leaf
  var size: UInt64 = 0

  mutating func visit(
    _ visit: Visit, in table: inout Stage2PageTable
  ) throws(Stage2Error) {
    let entry = table[visit.entry]
    if entry.protection.contains(.write) { size += table.granule.size(level: visit.level) }
  }
}

final class Events: MachineObserver {
  var aborts: [FaultInfo] = []
  var warnings: [Stage2Warning] = []

  func observe(_ event: MachineEvent) {
    switch event {
    case .abort(let fault): aborts.append(fault)
    case .warning(let warning): warnings.append(warning)
    default: break
    }
  }
}

extension Stage2PageTable {
  /// Hides a byte in the entry for `address`.
  mutating func hide(_ byte: UInt8, at address: IntermediatePhysicalAddress) throws(Stage2Error) {
    struct Hider: Stage2Visitor {
      static let flags = WalkFlags.leaf
      let byte: UInt8

      func visit(_ visit: Visit, in table: inout Stage2PageTable) throws(Stage2Error) {
        table[visit.entry].hiddenByte = byte
      }
    }
    var hider = Hider(byte: byte)
    try walk(address: address, size: granule.pageSize, visitor: &hider)
  }
}

/// Compares the articles with the sources that they describe.
@Suite struct DocumentationTests {
  private static let catalog = sources.appending(path: "Stage2Sim/Stage2Sim.docc")

  private static func articles() throws -> [URL] {
    try FileManager.default.contentsOfDirectory(at: catalog, includingPropertiesForKeys: nil)
      .filter { $0.pathExtension == "md" }
  }

  @Test func codeOfTheArticlesIsInTheseTests() throws {
    let tests = try String(contentsOfFile: #filePath, encoding: .utf8)
    var count = 0
    for article in try Self.articles() {
      for code in swiftBlocks(of: try String(contentsOf: article, encoding: .utf8)) {
        count += 1
        let isThere = contains(tests, code)
        #expect(isThere, "\(article.lastPathComponent): not in these tests:\n\(code)")
      }
    }
    #expect(count >= 15)
  }

  /// The Swift declaration of each row is in the file of the row, and a comment there has the kernel's name. Each
  /// kernel function that the sources name has a row.
  @Test func kernelNamesAreThoseOfTheSources() throws {
    let article = try String(
      contentsOf: Self.catalog.appending(path: "KernelNames.md"), encoding: .utf8)
    var rows: Set<String> = []
    var swift = ""
    for row in article.matches(
      of: /(?m)^\| `([a-z0-9_]+)` \| (.+) \| (.+\.swift) \| ((?:all|[0-9., ]+)) \|$/)
    {
      let (_, name, column, file, _) = row.output
      rows.insert(String(name))
      if column != "the same" { swift = String(column).replacing("`", with: "") }
      let source = try String(
        contentsOf: sources.appending(path: "Stage2Sim/\(file)"), encoding: .utf8)
      let found = declarations(of: swift, in: source)
      let isThere = !found.isEmpty
      #expect(isThere, "\(file) declares no \(swift)")
      let isNamed = found.contains { commentNames(in: $0).contains(String(name)) }
      #expect(isNamed, "no comment of \(swift) in \(file) names \(name)")
    }
    #expect(rows.count >= 100)
    for file in ["Attributes", "Map", "Unmap", "Walk"] {
      for name in try commentNames(ofFile: "Stage2Sim/PageTables/\(file).swift") {
        guard name.contains(/^_*(kvm|stage2)_/), !name.hasSuffix("_fn_t") else { continue }
        let has = rows.contains(name)
        #expect(has, "\(name) of \(file).swift is not in the table")
      }
    }
    for file in ["GuestAbort", "MMIO", "Notifier", "MemorySlot"] {
      for name in try commentNames(ofFile: "Stage2Sim/Hypervisor/\(file).swift")
      where name.contains(/^_*(kvm|stage2|gfn|hva|user_mem|handle|io_mem)_/) {
        let has = rows.contains(name)
        #expect(has, "\(name) of \(file).swift is not in the table")
      }
    }
  }

  /// DocC lists the types that the landing page omits, but without an order.
  @Test(arguments: ["Stage2Sim", "Scenarios"])
  func landingPageListsEveryType(module: String) throws {
    let page = try String(
      contentsOf: sources.appending(path: "\(module)/\(module).docc/\(module).md"),
      encoding: .utf8)
    let directory = sources.appending(path: module).path()
    let files = try FileManager.default.subpathsOfDirectory(atPath: directory)
    var count = 0
    for file in files where file.hasSuffix(".swift") {
      let text = try String(contentsOfFile: "\(directory)/\(file)", encoding: .utf8)
      for type in text.matches(of: /(?m)^public (?:final )?(?:struct|enum|protocol|class) (\w+)/) {
        count += 1
        let isListed = page.contains("- ``\(type.output.1)``\n")
        #expect(isListed, "\(type.output.1)")
      }
    }
    #expect(count >= 10)
  }

  private func commentNames(ofFile file: String) throws -> Set<String> {
    commentNames(in: try String(contentsOf: sources.appending(path: file), encoding: .utf8))
  }

  /// The names that stand alone between back quotes in the comments of a text.
  private func commentNames(in text: String) -> Set<String> {
    let comments = text.split(separator: "\n").filter {
      $0.contains("`") && $0.drop { $0 == " " }.hasPrefix("//")
    }
    return Set(comments.flatMap { $0.matches(of: /`([a-z0-9_]+)`/).map { String($0.output.1) } })
  }
}

/// The declarations in `source` of a link or path such as `Type.function(_:label:)`, each with its comment and its
/// body. A path without parentheses matches any labels.
private func declarations(of path: String, in source: String) -> [String] {
  let words = path.prefix { $0 != "(" }.split { $0 == "." || $0 == "/" }
  guard let name = words.last else { return [] }
  let lines = source.split(separator: "\n", omittingEmptySubsequences: false)
  // The file declares or extends the type of the path.
  for type in words.dropLast() {
    guard lines.contains(where: { $0.hasType(type) }) else { return [] }
  }
  return lines.indices.compactMap { index in
    let line = lines[index]
    // Most lines end here: the regular expressions take long in a debug build.
    guard line.contains(name) else { return nil }
    let isFunction = line.contains(/^ *([a-z@_]+ )*(func |init\()/)
    guard
      isFunction
        && ["func \(name)(", "func \(name)<", " \(name)("].contains(where: line.contains)
        || line.hasType(name)
        || ["var \(name):", "let \(name):", "var \(name) ", "let \(name) "]
          .contains(where: line.contains)
    else { return nil }
    let indentation = line.prefix { $0 == " " }
    let isLast = { (line: Substring) in line.hasPrefix("\(indentation)}") }
    let end =
      line.hasSuffix("{") || line.hasSuffix("(")
      ? lines[(index + 1)...].firstIndex(where: isLast) ?? index : index
    let start = (lines[..<index].lastIndex { !$0.contains(/^ *(\/\/|@)/) } ?? -1) + 1
    let text = lines[start...end].joined(separator: "\n")
    guard path.hasSuffix(")") else { return text }
    let signature = lines[index...end].joined(separator: " ").split(separator: "(", maxSplits: 1)
    let parameters = signature.last?.prefix { $0 != ")" } ?? ""
    let labels = parameters.split(separator: ",").compactMap { parameter in
      parameter.split(separator: ":").first?.split(separator: " ").first
    }
    let wanted = path.drop { $0 != "(" }.dropFirst().dropLast().split(separator: ":")
    return labels == wanted ? text : nil
  }
}

extension Substring {
  /// Whether the line declares or extends a type.
  fileprivate func hasType(_ name: Substring) -> Bool {
    contains(name)
      && ["struct", "enum", "class", "protocol", "extension"].contains { keyword in
        self.contains("\(keyword) \(name) ") || self.contains("\(keyword) \(name):")
      }
  }
}

/// The text of each block between "```swift" and "```".
private func swiftBlocks(of article: String) -> [String] {
  article.matches(of: /(?s)```swift\n(.*?)```/).map { String($0.output.1) }
}

/// Whether `text` contains `code` with the same indentation of all lines.
private func contains(_ text: String, _ code: String) -> Bool {
  [0, 2, 4].contains { indentation in
    let space = String(repeating: " ", count: indentation)
    let lines = code.split(separator: "\n", omittingEmptySubsequences: false)
      .map { $0.isEmpty ? "" : space + $0 }
    return text.contains("\n" + lines.joined(separator: "\n"))
  }
}
