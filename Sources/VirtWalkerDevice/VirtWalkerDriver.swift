import CharacterDeviceServer
import Stage2Sim
import SystemPackage

/// The guest's kernel module: the file operations of /dev/virt_walker, on the machine it is loaded in.
public final class VirtWalkerDriver: SimpleDevice {
  /// The machine, as the last operation left it. What is done to it between two operations happens to the guest.
  public var machine: VirtualMachine
  private let guestLog: ((GuestMessage) -> Void)?
  /// Where HIDE is mapped; SEEK follows it.
  private let registers: UInt64

  /// Loads the module: maps the two registers.
  ///
  /// - Parameters:
  ///   - machine: The guest's.
  ///   - guestLog: What the guest's kernel logs: called for each line, in order, before what it reports is done.
  /// - Throws: `ENOMEM` where they cannot be mapped.
  public init(
    loadedIn machine: VirtualMachine, guestLog: ((GuestMessage) -> Void)? = nil
  ) throws(Errno) {
    self.machine = machine
    self.guestLog = guestLog
    guard let registers = self.machine.ioremap(HideSeek.hideAddress, size: 2) else {
      throw .noMemory
    }
    self.registers = registers
  }

  public var givesTheSameAgain: Bool { true }

  /// `read`: one byte from SEEK, whatever the length.
  ///
  /// - Throws: `EIO` when the guest does not run any more.
  public func read(into buffer: inout OutputSpan<UInt8>) throws(Errno) {
    guestLog?(.read(length: buffer.freeCapacity))
    do throws(GuestStopped) {
      buffer.append(try machine.readb(registers + 1))
    } catch {
      throw stop(error)
    }
  }

  /// `write`: the first byte to HIDE, whatever the length.
  ///
  /// - Throws: `EIO` when the guest does not run any more.
  public func write(_ bytes: Span<UInt8>) throws(Errno) -> Int {
    guestLog?(.write(length: bytes.count))
    // A request without a byte never comes: the kernel ends those by itself.
    guard !bytes.isEmpty else { return 0 }
    do throws(GuestStopped) {
      try machine.writeb(bytes[0], to: registers)
    } catch {
      throw stop(error)
    }
    return 1
  }

  private func stop(_ reason: GuestStopped) -> Errno {
    guestLog?(.stopped(reason))
    return .ioError
  }
}

/// A line that the guest's kernel logs for the module.
public enum GuestMessage: Hashable, Sendable {
  case read(length: Int)
  case write(length: Int)
  /// Not a line of the module: the guest that would log does not run any more.
  case stopped(GuestStopped)
}

extension GuestMessage: CustomStringConvertible {
  public var description: String {
    switch self {
    case .read(let length): "read length: \(length) bytes"
    case .write(let length): "write length: \(length) bytes"
    case .stopped(let reason): "the guest has stopped: \(reason.result)"
    }
  }
}
