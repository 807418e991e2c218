// Guest drivers for tests, each behind the engine of the model and with the inspection around it, as virt-walkerd serves a driver.
//
//   GUEST_DRIVER=fifo|memory guest-drivers FILE | --cuse NAME
import CLinux
import CharacterDeviceServer
import Glibc
import Inspection
import Scenarios
import Stage2Sim
import VirtWalkerDevice

@main
struct Main {
  static func main() throws {
    let drivers: [String: any GuestDriver.Type] = [
      "fifo": FIFODriver.self, "memory": MemoryDriver.self,
    ]
    guard let driver = drivers[getenv("GUEST_DRIVER").map { String(cString: $0) } ?? ""] else {
      print("GUEST_DRIVER is one of \(drivers.keys.sorted().joined(separator: " "))")
      exit(64)
    }
    let engine = try ModelEngine(MachineDescription(.init()), driver: driver)
    let device = InspectedDevice(
      engine, node: "guest-drivers", task: ("guest-drivers", getpid()),
      clock: clinux_monotonic_nanoseconds, cpuClock: clinux_thread_cpu_nanoseconds)
    DeviceProgram.run(device, name: "guest-drivers")
  }
}
