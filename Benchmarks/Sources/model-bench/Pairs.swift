import ArgumentParser
import CharacterDeviceServer
import Inspection
import Scenarios
import Stage2Sim
import VirtWalkerDevice

/// Measures a hide and a seek by the guest, from its store to the entry and back.
struct Pairs: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "A hide and a seek: by the machine, the driver on it, and the device that is watched."
  )

  @Argument(help: "The number of pairs in a round.")
  var pairs: Int

  @Argument(help: "The number of rounds. The median round is printed.")
  var rounds: Int

  func run() throws {
    var (machine, registers) = try bootedMachine()
    var traced = machine
    traced.events = EventStream(capacity: 1 << 14)
    let driver = try ModelEngine.bench()
    driver.virtualMachine.events = nil
    let device = InspectedDevice(
      try ModelEngine.bench(), node: "bench", task: ("model-bench", 1), clock: now, cpuClock: now)
    let buffer = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: 1)
    defer { buffer.deallocate() }

    var times: (machine: [Double], traced: [Double], driver: [Double], device: [Double]) = (
      [], [], [], []
    )
    // The rounds alternate between the parts, because the clock rate of a CPU changes.
    for _ in 0...rounds {
      times.machine.append(try time { try hideAndSeek($0, on: &machine, registers) })
      times.traced.append(try time { try hideAndSeek($0, on: &traced, registers) })
      times.driver.append(try time { try pair($0, on: driver, buffer) })
      times.device.append(try time { try pair($0, on: device, buffer) })
    }
    // The first round, which fills the caches and the ring of the trace, is not counted.
    func ns(_ times: [Double]) -> String { "{\"ns\": \(median(Array(times.dropFirst())))}" }
    print(
      "{\"machine\": \(ns(times.machine)), \"traced\": \(ns(times.traced)), \"driver\": \(ns(times.driver)), \"device\": \(ns(times.device))}"
    )
  }

  private func pair(
    _ byte: UInt8, on device: some SimpleDevice, _ buffer: UnsafeMutableBufferPointer<UInt8>
  ) throws -> UInt8 {
    _ = try device.write(CollectionOfOne(byte).span)
    var output = OutputSpan(buffer: buffer, initializedCount: 0)
    try device.read(into: &output)
    return output[0]
  }

  /// Returns the nanoseconds for a pair.
  @inline(__always)
  private func time(_ pair: (UInt8) throws -> UInt8) throws -> Double {
    let start = now()
    for index in 0..<pairs {
      let byte = UInt8(truncatingIfNeeded: index)
      guard try pair(byte) == byte else { throw ValidationError("byte \(byte) was lost") }
    }
    return Double(now() - start) / Double(pairs)
  }
}

extension ModelEngine {
  /// The engine of `virt-walkerd serve`.
  static func bench() throws -> ModelEngine {
    try ModelEngine(MachineDescription(.init()), driver: VirtWalkerDriver.self)
  }
}

/// Returns the machine, and the addresses of HIDE and SEEK in its guest.
func bootedMachine() throws -> (VirtualMachine, registers: GuestVirtualAddress) {
  var machine = try VirtualMachine.bootedWithHideSeek()
  guard let registers = machine.ioremap(HideSeek.hideAddress, size: 2) else {
    throw ValidationError("the registers cannot be mapped")
  }
  return (machine, registers)
}

/// Hides a byte, and reads it back.
func hideAndSeek(_ byte: UInt8, on machine: inout VirtualMachine, _ registers: GuestVirtualAddress)
  throws
  -> UInt8
{
  try machine.writeb(byte, to: registers)
  return try machine.readb(registers + 1)
}
