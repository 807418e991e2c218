import CUserCode
import Glibc
import Scenarios
import Stage2Sim
import VirtWalkerDevice

/// A user's hook in the host's KVM, which replaces `io_mem_abort`, `kvm_hvc_call_handler`, or both.
final class CodeHook: MMIOHook, HypercallHook {
  private let process: CodeProcess
  private let name: String
  private let registers: HidingRegisters?
  private let cpu: CPUModel
  private var watch = TableWatch()
  /// The memory that the hook's process has the tables in.
  private var block: TableBlock?
  /// The functions that the hook has: `io_mem_abort()` and `kvm_hvc_call_handler()`.
  private(set) var hasAbort = false
  private(set) var hasHypercall = false
  /// The addresses of these functions, or of the user's function that stands for one of them; 0 if it is not there.
  private var functions: (abort: UInt64, hypercall: UInt64) = (0, 0)
  /// Whether the present call is a hypercall.
  private var isInHypercall = false
  /// The last abort after which the program counter has not moved.
  private var unmoved: (pc: GuestVirtualAddress, fault: FaultInfo)?

  /// The PSTATE of a guest's kernel whose interrupts are off: EL1h, DAIF.
  fileprivate static let pstateOfGuest: UInt64 = 0x3c5
  /// The bits of the hidden byte.
  private static let byteMask: UInt64 = 0xff << UInt64(HiddenBit.shift)
  /// The number of changed entries that one call is told.
  private static let mostChanges = 4

  /// Starts a hook.
  ///
  /// - Parameters:
  ///   - process: The process of the hook.
  ///   - name: The name of its source.
  ///   - registers: The registers by which the hook hides a byte; nil for another device, of whose bytes nothing is known.
  ///   - machine: The machine, whose tables are shared (``SharedTableBlock``).
  /// - Throws: The reason why the hook does not run.
  init(
    _ process: CodeProcess, name: String, registers: HidingRegisters?,
    in machine: inout VirtualMachine
  ) throws(CodeFailure) {
    self.process = process
    self.name = name
    self.registers = registers
    cpu = machine.configuration.cpu
    guard let tables = machine.stage2.shareTables() else { throw CodeFailure(Self.noMemory) }
    give(tables, vtcr: machine.stage2.vtcr(on: cpu))
    let answer: channel_message
    do throws(CodeProcess.Ended) {
      answer = try process.call(
        CHANNEL_START, log: { machine.logOfHost($0, $1) }, answer: Self.refuse)
    } catch {
      throw CodeFailure(
        "the hook \(name) does not start: \(process.fatal.map { "\($0)" } ?? "its process has ended")"
      )
    }
    guard answer.kind == CHANNEL_DONE.rawValue, answer.result == 0 else {
      throw CodeFailure(
        "the hook \(name) does not start: its process answers \(ErrorName.describe(answer.result)). This is a defect of virt-walkerd."
      )
    }
    hasAbort = answer.arguments.0 & 1 != 0
    hasHypercall = answer.arguments.1 & 1 != 0
    functions = (answer.arguments.2, answer.arguments.3)
  }

  /// The answer to a request: a hook has none but that for room in the log.
  private static func refuse(_ request: channel_message) -> CodeChannel.Reply {
    CodeChannel.Reply(result: Int64(-EINVAL))
  }

  private static let noMemory =
    "there is no memory for stage-2 tables that a hook's process can share. Free some memory, or raise the limit of the service."

  var replacesIOMemAbort: Bool { hasAbort }

  func ioMemAbort(
    _ access: MMIOAccess, vcpu: inout VCPU, kvm: inout KVM
  ) throws(KernelError) -> MMIOHookResult {
    guard hasAbort else { return .notHandled }
    isInHypercall = false
    guard process.fatal == nil else { return .crash }
    guard let tables = kvm.stage2.shareTables() else {
      find(Self.noMemory, in: kvm)
      throw .outOfMemory
    }
    let answer: channel_message
    var sawTarget = false
    do throws(CodeProcess.Ended) {
      try follow(tables, in: kvm)
      watch.note(kvm.stage2, access: access.address, base: tables.base)
      process.channel.vcpu = channel_vcpu(vcpu)
      let target = watch.target.last?.offset(from: tables.base)
      answer = try process.call(
        CHANNEL_ABORT, (access.address.rawValue, 0, 0, 0), log: { log($0, $1, in: kvm) },
        event: { record in
          if report(record, in: kvm) == target { sawTarget = true }
        }, answer: Self.refuse)
    } catch {
      return .crash
    }
    guard answer.kind == CHANNEL_DONE.rawValue else {
      process.fail(
        .broken("io_mem_abort() waits, and nothing can wake it"), log: { log($0, false, in: kvm) })
      return .crash
    }
    return try take(answer.result, of: access, tables, &vcpu, &kvm, sawTarget: sawTarget)
  }

  func handleHypercall(
    vcpu: inout VCPU, kvm: inout KVM
  ) throws(KernelError) -> HypercallResult {
    guard hasHypercall else { return .notHandled }
    isInHypercall = true
    guard process.fatal == nil else { return .crash }
    guard let tables = kvm.stage2.shareTables() else {
      find(Self.noMemory, in: kvm)
      throw .outOfMemory
    }
    let answer: channel_message
    do throws(CodeProcess.Ended) {
      try follow(tables, in: kvm)
      watch.note(kvm.stage2, access: HideSeek.target, base: tables.base)
      process.channel.vcpu = channel_vcpu(vcpu)
      answer = try process.call(
        CHANNEL_HYPERCALL, log: { log($0, $1, in: kvm) }, event: { _ = report($0, in: kvm) },
        answer: Self.refuse)
    } catch {
      return .crash
    }
    let after = process.channel.vcpu
    after.setRegisters(of: &vcpu)
    let target = watch.target.last?.offset(from: tables.base)
    for change in watch.changes(in: kvm.stage2, most: Self.mostChanges) {
      let isTarget = change.offset == target
      check(change, isTarget: isTarget, isHide: true, tables, kvm)
      if isTarget, change.old.hiddenByte != change.new.hiddenByte {
        kvm.stage2.report(
          .byteWritten(change.new.hiddenByte, old: change.old, new: change.new))
      }
    }
    guard answer.result <= 0 else { return .handled }
    guard answer.result < 0 else { return .exit }
    throw error(of: answer.result, from: "kvm_hvc_call_handler()", in: kvm)
  }

  /// Tells the process that the tables have other memory, if they have.
  private func follow(_ tables: SharedTables, in kvm: KVM) throws(CodeProcess.Ended) {
    guard tables.block !== block else { return }
    give(tables, vtcr: kvm.stage2.vtcr(on: cpu))
    _ = try process.call(CHANNEL_TABLES, log: { log($0, $1, in: kvm) }, answer: Self.refuse)
  }

  /// Puts a visit or an invalidation into the trace.
  ///
  /// - Returns: The place of the entry of a visit.
  private func report(_ record: CodeRecord, in kvm: KVM) -> UInt64? {
    switch record {
    case .visit(let offset, let level):
      let isThere = kvm.stage2.reportVisit(
        at: offset, level: Int(level), descriptor: watch.old(at: offset))
      return isThere ? offset : nil
    case .invalidation(CHANNEL_INVALIDATE_ALL, _):
      kvm.stage2.reportInvalidation(of: nil, level: 0)
    case .invalidation(let ipa, let level):
      kvm.stage2.reportInvalidation(of: IntermediatePhysicalAddress(ipa), level: Int(level & 3))
    case .line, .finding: break
    }
    return nil
  }

  /// Gives the process the memory of the tables.
  private func give(_ tables: SharedTables, vtcr: UInt64) {
    guard let shared = tables.block as? SharedTableBlock else { return }
    process.channel.geometry = channel_geometry(tables, vtcr: vtcr)
    do throws(CodeChannel.Failure) {
      try process.channel.send(shared.descriptor)
    } catch {
      // The next call finds that the process has ended, and says why.
    }
    block = tables.block
  }

  // MARK: - The result

  private func take(
    _ result: Int64, of access: MMIOAccess, _ tables: SharedTables, _ vcpu: inout VCPU,
    _ kvm: inout KVM, sawTarget: Bool
  ) throws(KernelError) -> MMIOHookResult {
    let after = process.channel.vcpu
    let pc = vcpu.pc
    let hasMoved = after.increments > 0 || after.pc != pc.rawValue
    after.setRegisters(of: &vcpu)
    checkTables(access, result, tables, vcpu, kvm, sawTarget: sawTarget)
    if result > 0 {
      checkProgress(hasMoved, pc, vcpu.fault, kvm)
      return .handled
    }
    unmoved = nil
    if result == 0 { return exit(access, after, &vcpu, kvm) }
    throw error(of: result, from: "io_mem_abort()", in: kvm)
  }

  private func error(of result: Int64, from function: String, in kvm: KVM) -> KernelError {
    if result > Int64(Int32.min), let error = KernelError(rawValue: Int32(-result)) { return error }
    find(
      "\(function) returned \(ErrorName.describe(result)), an error that the model does not have: KVM_RUN fails with EINVAL here",
      in: kvm)
    return .invalidArgument
  }

  /// An exit to the virtual machine monitor.
  private func exit(
    _ access: MMIOAccess, _ after: channel_vcpu, _ vcpu: inout VCPU, _ kvm: KVM
  ) -> MMIOHookResult {
    if after.increments > 0 {
      find(
        "io_mem_abort() returned 0 after kvm_incr_pc(): the program counter moves once now, and once more when the virtual machine monitor has answered the access. Return 1 if the access is done",
        in: kvm)
    }
    let length = Int(after.exit_length)
    guard after.exit_reason == Self.exitForMMIO, (1...8).contains(length) else {
      find(
        "io_mem_abort() returned 0, but has not set vcpu->run->exit_reason and vcpu->run->mmio: the virtual machine monitor stops at such an exit. Return 1 after kvm_incr_pc() if the access is done",
        in: kvm)
      return .exit
    }
    if let registers, access.address == registers.hide || access.address == registers.seek {
      find(
        "io_mem_abort() returned 0 for the access to \(access.address): KVM_RUN leaves to the virtual machine monitor, which has no device there. A hook that has done the access calls kvm_incr_pc() and returns 1",
        in: kvm)
    }
    let isWrite = after.exit_is_write & 1 != 0
    vcpu.exit(
      with: MMIOExit(
        isWrite: isWrite, address: IntermediatePhysicalAddress(after.exit_address), length: length,
        data: isWrite ? after.exit_data & .max >> UInt64(64 - 8 * length) : 0))
    return .exit
  }

  /// KVM_EXIT_MMIO
  private static let exitForMMIO: UInt32 = 6

  /// Tells a guest that takes the same abort again, as nobody has moved its program counter.
  private func checkProgress(
    _ hasMoved: Bool, _ pc: GuestVirtualAddress, _ fault: FaultInfo, _ kvm: KVM
  ) {
    guard !hasMoved else {
      unmoved = nil
      return
    }
    if let unmoved, unmoved == (pc, fault) {
      find(
        "io_mem_abort() returned 1 and did not call kvm_incr_pc(): the guest executes the same instruction again and again, and hangs",
        in: kvm)
    }
    unmoved = (pc, fault)
  }

  // MARK: - The tables

  /// Reports the byte that the hook has hidden or read, and the mistakes that the tables show.
  private func checkTables(
    _ access: MMIOAccess, _ result: Int64, _ tables: SharedTables, _ vcpu: VCPU, _ kvm: KVM,
    sawTarget: Bool
  ) {
    let isHide = registers.map { access.address == $0.hide && access.isWrite } ?? false
    let isSeek = registers.map { access.address == $0.seek && !access.isWrite } ?? false
    let path = watch.target
    let target = path.last.map { ($0, $0.offset(from: tables.base)) }
    let changes = watch.changes(in: kvm.stage2, most: Self.mostChanges)
    for change in changes {
      check(change, isTarget: change.offset == target?.1, isHide: isHide, tables, kvm)
    }
    guard result > 0, access.length == 1, isHide || isSeek, let (visit, offset) = target else {
      return
    }
    let old = visit.descriptor
    let new = changes.first { $0.offset == offset }?.new ?? old
    if !sawTarget {
      // A walk by hand: the trace shows the entry all the same.
      for visit in path {
        kvm.stage2.reportVisit(
          at: visit.offset(from: tables.base), level: visit.level, descriptor: visit.descriptor)
      }
    }
    if isHide {
      kvm.stage2.report(.byteWritten(new.hiddenByte, old: old, new: new))
      checkHidden(UInt8(truncatingIfNeeded: access.data), old: old, new: new, kvm)
    } else {
      let value = vcpu[access.register]
      kvm.stage2.report(.byteRead(UInt8(truncatingIfNeeded: value), new))
      if access.register != 31 { checkRead(value, new, kvm) }
    }
  }

  private func check(
    _ change: TableWatch.Change, isTarget: Bool, isHide: Bool, _ tables: SharedTables, _ kvm: KVM
  ) {
    let (old, new) = (change.old, change.new)
    // A hidden byte is no mistake. A search for the entry's place would be most of the time of a call.
    if registers != nil, isTarget, isHide, (old.rawValue ^ new.rawValue) & ~Self.byteMask == 0,
      watch.target.last.map({ !old.isTable(level: $0.level) }) ?? false
    {
      return
    }
    let place = watch.place(of: change.offset, in: tables)
    let name =
      isTarget
      ? "the entry of \(HideSeek.target)"
      : place.map { "the entry of \($0.address) at level \($0.level)" }
        ?? "an entry that no address uses"
    let level = isTarget ? watch.target.last?.level : place?.level
    let isTable = level.map { old.isTable(level: $0) } ?? false
    let type = Stage2Descriptor.valid | Stage2Descriptor.tableOrPage
    if isTable, (old.rawValue ^ new.rawValue) & (type | tables.granule.addressBits) == 0 {
      find(
        "the hook has changed \(name), which points to a table: \(old) became \(new), bits \(Self.bits(old.rawValue ^ new.rawValue)). The byte belongs into the entry of the page or block",
        in: kvm)
      return
    }
    if (old.rawValue ^ new.rawValue) & type != 0 || isTable {
      find(
        "the hook has left the tables inconsistent: \(name) was \(describe(old, level)) \(old), and is \(describe(new, level)) \(new)",
        in: kvm)
      return
    }
    guard registers != nil else { return }
    guard isTarget else {
      find(
        "the hook has changed \(name): \(old) became \(new). The byte belongs into the entry of \(HideSeek.target)",
        in: kvm)
      return
    }
    let other = (old.rawValue ^ new.rawValue) & ~Self.byteMask
    if other != 0 {
      find(
        "the hook has changed bits outside [58:51] of \(name): \(old) became \(new), bits \(Self.bits(other))",
        in: kvm)
    }
    if !isHide {
      find(
        "the hook has changed \(name) in an access that hides no byte: \(old) became \(new)",
        in: kvm)
    }
  }

  private func describe(_ entry: Stage2Descriptor, _ level: Int?) -> String {
    guard entry.isValid else { return entry.rawValue == 0 ? "empty" : "invalid" }
    guard let level else { return "valid" }
    return entry.isTable(level: level)
      ? "a table" : level == Granule.lastLevel ? "a page" : "a block"
  }

  /// `52, 40-43`
  private static func bits(_ mask: UInt64) -> String {
    var parts: [String] = []
    var bit = 0
    while bit < 64 {
      guard mask >> UInt64(bit) & 1 != 0 else {
        bit += 1
        continue
      }
      let first = bit
      while bit < 64, mask >> UInt64(bit) & 1 != 0 { bit += 1 }
      parts.append(bit - 1 == first ? "\(first)" : "\(first)-\(bit - 1)")
    }
    return parts.joined(separator: ", ")
  }

  private func checkHidden(
    _ byte: UInt8, old: Stage2Descriptor, new: Stage2Descriptor, _ kvm: KVM
  ) {
    guard new.hiddenByte != byte else { return }
    let reason: String
    if new != old, new.hiddenByte == old.hiddenByte | byte {
      reason = "the bits of the byte before were not cleared first"
    } else if let shift = Self.otherShift(of: byte, in: new) {
      reason = "the byte is at bit \(shift): the shift is \(HiddenBit.shift)"
    } else if new == old {
      reason = "the entry has not changed"
    } else {
      reason = "the entry is \(new)"
    }
    find(
      "the guest has written the byte \(Self.hex(byte)) to HIDE, but bits [58:51] of the entry of \(HideSeek.target) hold \(Self.hex(new.hiddenByte)): \(reason)",
      in: kvm)
  }

  private func checkRead(_ value: UInt64, _ entry: Stage2Descriptor, _ kvm: KVM) {
    guard value != UInt64(entry.hiddenByte) else { return }
    let reason: String
    if value == entry.rawValue >> UInt64(HiddenBit.shift) {
      reason = "the bits above bit 58 were not masked: & 0xff"
    } else if let shift = (48...54).first(where: {
      $0 != HiddenBit.shift && value & 0xff == entry.rawValue >> UInt64($0) & 0xff
    }), entry.hiddenByte != UInt8(truncatingIfNeeded: value) {
      reason = "the value is from bit \(shift) on: the shift is \(HiddenBit.shift)"
    } else {
      reason = "the entry is \(entry)"
    }
    find(
      "SEEK gives the guest 0x\(String(value, radix: 16)), but bits [58:51] of the entry of \(HideSeek.target) hold \(Self.hex(entry.hiddenByte)): \(reason)",
      in: kvm)
  }

  private static func otherShift(of byte: UInt8, in entry: Stage2Descriptor) -> Int? {
    guard byte != 0 else { return nil }
    return [50, 52, 49, 53, 55, 56].first {
      entry.rawValue >> UInt64($0) & 0xff == UInt64(byte)
    }
  }

  private static func hex(_ byte: UInt8) -> String {
    let digits = String(byte, radix: 16)
    return "0x" + (digits.count < 2 ? "0" : "") + digits
  }

  // MARK: - The log

  /// Tells a mistake that the tables or the result show. Its place is the function that was called.
  private func find(_ text: String, in kvm: KVM) {
    let function = isInHypercall ? functions.hypercall : functions.abort
    process.report(
      CodeFinding(
        kind: .hook, text: text,
        place: (function == 0 ? nil : process.place(of: function))
          ?? SourcePlace(function: "", file: name, line: 0, isUsers: true)),
      log: { log($0, false, in: kvm) })
  }

  private func log(_ line: String, _ isOfCode: Bool, in kvm: KVM) {
    kvm.printk(text: line, layer: isOfCode ? .hook : .checker)
  }
}

/// A hook of a user that hides a byte by two registers.
struct CodeHidingHook: HidingHook, HypercallHook {
  let hook: CodeHook
  let registers: HidingRegisters

  var replacesIOMemAbort: Bool { true }

  func ioMemAbort(
    _ access: MMIOAccess, vcpu: inout VCPU, kvm: inout KVM
  ) throws(KernelError) -> MMIOHookResult {
    try hook.ioMemAbort(access, vcpu: &vcpu, kvm: &kvm)
  }

  func handleHypercall(
    vcpu: inout VCPU, kvm: inout KVM
  ) throws(KernelError) -> HypercallResult {
    try hook.handleHypercall(vcpu: &vcpu, kvm: &kvm)
  }
}

extension Granule {
  /// The bits of an entry that can be an output address.
  fileprivate var addressBits: UInt64 { 0x0000_ffff_ffff_f000 & ~(pageSize - 1) }
}

extension VirtualMachine {
  fileprivate mutating func logOfHost(_ line: String, _ isOfCode: Bool) {
    printkOfHost(text: line, layer: isOfCode ? .hook : .checker)
  }
}

extension channel_geometry {
  fileprivate init(_ tables: SharedTables, vtcr: UInt64) {
    self.init()
    size = UInt64(tables.block.size)
    base = tables.base.rawValue
    pgd = tables.pgd.rawValue
    ipa_bits = UInt32(tables.ipaBits)
    start_level = UInt32(tables.startLevel)
    page_shift = UInt32(tables.granule.pageShift)
    self.vtcr = vtcr
    vmid = 1
  }
}

extension channel_vcpu {
  fileprivate init(_ vcpu: VCPU) {
    self.init()
    withUnsafeMutableBytes(of: &x) { bytes in
      let x = bytes.bindMemory(to: UInt64.self)
      for register in 0..<31 { x[register] = vcpu[register] }
    }
    sp_el1 = vcpu.stackPointer
    pc = vcpu.pc.rawValue
    pstate = CodeHook.pstateOfGuest
    esr_el2 = vcpu.fault.syndrome.rawValue
    far_el2 = vcpu.fault.far.rawValue
    hpfar_el2 = vcpu.fault.hpfar
  }

  /// Gives the vCPU the registers and the program counter that the hook has left.
  fileprivate func setRegisters(of vcpu: inout VCPU) {
    withUnsafeBytes(of: x) { bytes in
      let x = bytes.bindMemory(to: UInt64.self)
      for register in 0..<31 where vcpu[register] != x[register] { vcpu[register] = x[register] }
    }
    // Linux 5.10 moves the program counter at each call of kvm_skip_instr(), later versions once before the guest goes on.
    let skipped = UInt64(max(1, increments) - 1) &* 4
    let moved = GuestVirtualAddress(pc &+ skipped)
    if vcpu.pc != moved { vcpu.setPC(moved) }
    if increments > 0 { vcpu.incrementPC() }
  }
}
