import Stage2Sim
import SystemPackage

/// The kernel module of the original system: the driver of the registers HIDE and SEEK.
public struct VirtWalkerDriver: GuestDriver {
  /// The virtual address of HIDE. SEEK follows it.
  private let registers: GuestVirtualAddress

  /// Loads the module: maps the two registers.
  ///
  /// - Throws: `ENOMEM` if they cannot be mapped.
  public init(loadedIn machine: inout VirtualMachine) throws(Errno) {
    guard let registers = machine.ioremap(HideSeek.hideAddress, size: 2) else {
      throw .noMemory
    }
    self.registers = registers
  }

  /// `read`: one byte from SEEK, whatever the length.
  public mutating func read(
    into buffer: inout OutputSpan<UInt8>, _ file: inout GuestFile,
    on machine: inout VirtualMachine
  ) throws(GuestDriverError) {
    machine.printk("read length: %d bytes", buffer.freeCapacity)
    do throws(GuestStopped) {
      let byte = try machine.readb(registers + 1)
      // The node has no reads of no bytes, but a call without a node can be one.
      if buffer.freeCapacity > 0 { buffer.append(byte) }
    } catch {
      throw .stopped(error)
    }
  }

  /// `write`: the first byte to HIDE, whatever the length.
  public mutating func write(
    _ bytes: Span<UInt8>, _ file: inout GuestFile, on machine: inout VirtualMachine
  ) throws(GuestDriverError) -> Int {
    machine.printk("write length: %d bytes", bytes.count)
    // The kernel ends a write of no bytes by itself, so that no such request comes.
    guard !bytes.isEmpty else { return 0 }
    do throws(GuestStopped) {
      try machine.writeb(bytes[0], to: registers)
    } catch {
      throw .stopped(error)
    }
    return 1
  }

  public var givesTheSameAgain: Bool { true }
}
