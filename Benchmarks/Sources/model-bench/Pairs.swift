import ArgumentParser
import Inspection
import Stage2Sim
import VirtWalkerDevice

/// A hide and a seek by the guest, from its store to the entry and back.
struct Pairs: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "A hide and a seek: by the machine, the driver on it, and the device that is watched."
  )

  @Argument(help: "Pairs in a round.")
  var pairs: Int

  @Argument(help: "How often. The median round is printed.")
  var rounds: Int

  func run() throws {
    var machine = try VirtualMachine.booted()
    guard let registers = machine.ioremap(HideSeek.hideAddress, size: 2) else {
      throw ValidationError("the registers cannot be mapped")
    }
    var traced = machine
    traced.trace = TraceRing(capacity: 1 << 14)
    let driver = try VirtWalkerDriver(loadedIn: .booted())
    let device = try InspectedDevice(
      .init(), node: "bench", task: ("model-bench", 1), clock: now)
    let buffer = UnsafeMutableBufferPointer<UInt8>.allocate(capacity: 1)
    defer { buffer.deallocate() }

    var times: (machine: [Double], traced: [Double], driver: [Double], device: [Double]) = (
      [], [], [], []
    )
    // In turn, as the clock rate of a CPU changes.
    for _ in 0...rounds {
      times.machine.append(
        try time { byte in
          try machine.writeb(byte, to: registers)
          return try machine.readb(registers + 1)
        })
      times.traced.append(
        try time { byte in
          try traced.writeb(byte, to: registers)
          return try traced.readb(registers + 1)
        })
      times.driver.append(
        try time { byte in
          _ = try driver.write(CollectionOfOne(byte).span)
          var output = OutputSpan(buffer: buffer, initializedCount: 0)
          try driver.read(into: &output)
          return output[0]
        })
      times.device.append(
        try time { byte in
          _ = try device.write(CollectionOfOne(byte).span)
          var output = OutputSpan(buffer: buffer, initializedCount: 0)
          try device.read(into: &output)
          return output[0]
        })
    }
    // Without the first round, which the caches and the trace's ring had to be filled in.
    func ns(_ times: [Double]) -> String { "{\"ns\": \(median(Array(times.dropFirst())))}" }
    print(
      "{\"machine\": \(ns(times.machine)), \"traced\": \(ns(times.traced)), \"driver\": \(ns(times.driver)), \"device\": \(ns(times.device))}"
    )
  }

  /// Nanoseconds for a pair.
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
