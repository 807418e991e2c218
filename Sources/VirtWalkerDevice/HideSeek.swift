import Scenarios
import Stage2Sim

/// A hook that hides a byte by two registers, and tells ``ModelEngine`` where they are, so that `Explainer` can use them.
public protocol HidingHook: MMIOHook {
  /// The registers of the hook.
  var registers: HidingRegisters { get }
}

/// The hook of the original system: it hides one byte in bits [58:51] of the stage-2 entry of the first page of guest RAM, and
/// reads the byte from there.
public struct HideSeek: HidingHook {
  /// The guest physical address of the register HIDE: a write of one byte hides the byte.
  public static let hideAddress: IntermediatePhysicalAddress = 0x0b00_0000
  /// The guest physical address of the register SEEK: a read of one byte gives the hidden byte.
  public static let seekAddress: IntermediatePhysicalAddress = 0x0b00_0001
  /// The guest physical address of the page whose entry holds the byte.
  public static let target: IntermediatePhysicalAddress = 0x4000_0000

  /// The addresses that the hook claims: one more than it has registers. The hook compares only the first address of an access.
  private static let claimed = hideAddress...hideAddress + 2

  /// A hook without state: the byte is in the entry.
  public init() {}

  public var registers: HidingRegisters {
    HidingRegisters(hide: Self.hideAddress, seek: Self.seekAddress)
  }

  @inline(__always)
  public mutating func ioMemAbort(
    _ access: MMIOAccess, vcpu: inout VCPU, kvm: inout KVM
  ) throws(KernelError) -> MMIOHookResult {
    guard Self.claimed.contains(access.address) else { return .notHandled }
    kvm.printk(LogMessage(.hook, "MMIO to HIDE and SEEK register detected, len: %d", access.length))
    guard access.length == 1 else {
      kvm.printk(LogMessage(.hook, "more than one byte being read/write, ERROR"))
      throw .invalidArgument
    }
    switch (access.address, access.isWrite) {
    case (Self.hideAddress, true):
      let byte = UInt8(truncatingIfNeeded: vcpu[access.register])
      try Self.walk(hiding: byte, in: &kvm.stage2)
    case (Self.seekAddress, false):
      // The register is zero-extended, whatever the load was: the hook writes the register itself.
      vcpu[access.register] = UInt64(try Self.walk(hiding: nil, in: &kvm.stage2))
    default:
      break
    }
    vcpu.incrementPC()
    return .handled
  }

  /// Walks over a page, and hides a byte in the entry that maps the page, or reads the byte there.
  ///
  /// - Parameters:
  ///   - byte: The byte to hide; nil to read it.
  ///   - target: A guest physical address of the page.
  ///   - stage2: The table.
  /// - Returns: The byte in the entry afterwards.
  /// - Throws: `EFAULT` if the walk finds no entry.
  @discardableResult
  public static func walk(
    hiding byte: UInt8?, at target: IntermediatePhysicalAddress = target,
    in stage2: inout Stage2PageTable
  ) throws(KernelError) -> UInt8 {
    var found: UInt8?
    do throws(Stage2Error) {
      try stage2.walk(
        address: target, size: stage2.granule.pageSize, flags: .leaf, reportsVisits: true
      ) { visit, table in
        guard visit.address == target else { return }
        let old = table[visit.entry]
        guard let byte else {
          found = old.hiddenByte
          table.report(.byteRead(old.hiddenByte, old))
          return
        }
        var new = old
        new.hiddenByte = byte
        table[visit.entry] = new
        found = byte
        table.report(.byteWritten(byte, old: old, new: new))
      }
    } catch {
      throw .badAddress
    }
    guard let found else { throw .badAddress }
    return found
  }
}

extension VirtualMachine {
  /// The machine of the original system when the guest loads the module: ``Stage2Sim/VirtualMachine/booted(_:tables:)`` with the hook
  /// ``HideSeek`` in the host's kernel.
  ///
  /// - Throws: As ``Stage2Sim/VirtualMachine/init(_:tables:)``.
  public static func bootedWithHideSeek(
    _ configuration: Configuration = Configuration()
  ) throws(KernelError) -> VirtualMachine {
    var machine = try VirtualMachine.booted(configuration)
    machine.add(HideSeek())
    return machine
  }
}

extension Stage2Descriptor {
  /// Bits [58:51]: DBM, Contiguous, XN[1:0] and the four software bits.
  public var hiddenByte: UInt8 {
    get { UInt8(truncatingIfNeeded: rawValue &>> UInt64(HiddenBit.shift)) }
    set {
      let shift = UInt64(HiddenBit.shift)
      rawValue = rawValue & ~(0xff &<< shift) | UInt64(newValue) &<< shift
    }
  }
}
