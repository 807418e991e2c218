import FuzzSupport
import VirtWalkerDevice

@testable import Stage2Sim

/// Decodes instructions and syndromes. The registers of an abort describe the instruction that took the abort. The
/// handling of an abort with arbitrary registers returns.
@_cdecl("LLVMFuzzerTestOneInput")
func test(_ start: UnsafePointer<UInt8>?, _ count: Int) -> CInt {
  let bytes = Array(UnsafeBufferPointer(start: start, count: count))
  var input = InputReader(bytes)
  let machine = booted(&input)
  checkFields(of: ExceptionSyndrome(rawValue: input.next()))
  run(input.next(UInt32.self), on: machine, &input)
  handleAbort(on: machine, &input)
  return 0
}

func booted(_ input: inout InputReader) -> VirtualMachine {
  do {
    return try .bootedWithHideSeek(
      .init(
        cpu: input.next(of: CPUModel.allCases), granule: input.next(of: Granule.allCases),
        backing: input.next(of: Backing.allCases), memorySize: 1 << 30))
  } catch {
    fatalError("the machine cannot be made: \(error)")
  }
}

/// Encoding the fields of a data abort gives the syndrome again.
func checkFields(of syndrome: ExceptionSyndrome) {
  guard syndrome.exceptionClass == ExceptionSyndrome.dataAbort, syndrome.isValid,
    let status = syndrome.faultStatus,
    let size = LoadStore.Size(rawValue: UInt8(syndrome.accessSize.trailingZeroBitCount))
  else { return }
  let access = LoadStore(
    isStore: syndrome.isWrite, size: size, register: syndrome.register,
    isSignExtending: syndrome.isSignExtending, is64Bit: syndrome.is64Bit,
    isAcquireRelease: syndrome.rawValue >> 14 & 1 != 0)
  let encoded = ExceptionSyndrome(dataAbort: status, level: syndrome.faultLevel, access: access)
  // The mask has EC, IL, ISV to AR, WnR and DFSC.
  let fields: UInt64 = 0xffff_c07f
  check(
    encoded.rawValue & ~(1 << 25) == syndrome.rawValue & fields & ~(1 << 25),
    "\(syndrome) is encoded as \(encoded)")
}

/// Runs one instruction with arbitrary registers, and then one step of the VMM.
func run(_ word: UInt32, on booted: VirtualMachine, _ input: inout InputReader) {
  let places: [UInt64] = [
    HideSeek.hideAddress.rawValue, HideSeek.target.rawValue, HideSeek.target.rawValue + 0x20_0000,
    0,
    1 << 40, .max,
  ]
  func runs() -> (RunResult, FaultInfo, [UInt64]) {
    var input = input
    var machine = booted
    for register in 0...30 {
      machine.setRegister(
        register, to: input.next(of: places) &+ UInt64(truncatingIfNeeded: input.next(Int8.self)))
    }
    // The guest's kernel has executed from this address.
    let code = VirtualMachine.kernelAddress
    do {
      try machine.write(UInt64(word), to: code, count: 4)
    } catch {
      fatalError("the code cannot be written: \(error)")
    }
    let result = machine.run(at: .init(flat: code))
    machine.completeMMIO(data: input.next())
    return (result, machine.vcpu.fault, (0...31).map { machine.vcpu[$0] })
  }
  let (result, fault, registers) = runs()
  check((result, fault, registers) == runs(), "two runs of \(word) differ")

  guard case .access(let access, _) = A64Instruction(decoding: word),
    fault.syndrome.exceptionClass == ExceptionSyndrome.dataAbort
  else { return }
  check(fault.syndrome.isWrite == access.isStore, "WnR of \(fault.syndrome) for \(access)")
  check(
    fault.syndrome.isValid == access.hasValidSyndrome, "ISV of \(fault.syndrome) for \(access)")
  guard access.hasValidSyndrome else { return }
  check(
    fault.syndrome.accessSize == access.size.bytes && fault.syndrome.register == access.register
      && fault.syndrome.is64Bit == access.is64Bit
      && fault.syndrome.isSignExtending == access.isSignExtending,
    "\(fault.syndrome) for \(access)")
}

/// Lets KVM handle an abort with arbitrary registers.
func handleAbort(on booted: VirtualMachine, _ input: inout InputReader) {
  var machine = booted
  let classes = [ExceptionSyndrome.instructionAbort, ExceptionSyndrome.dataAbort]
  let syndrome = input.next(of: classes) << 26 | input.next(UInt64.self) & 0x3ff_ffff
  let ipa = input.next(UInt64.self) & 0xffff_ffff_ffff
  machine.vcpu.fault = FaultInfo(
    syndrome: ExceptionSyndrome(rawValue: syndrome), far: GuestVirtualAddress(input.next()),
    ipa: IntermediatePhysicalAddress(ipa))
  check(machine.vcpu.fault.pageAddress.rawValue == ipa & ~0xfff, "HPFAR_EL2 of \(ipa)")
  // An error of KVM is a valid outcome, too.
  _ = try? machine.handleGuestAbort()
}
