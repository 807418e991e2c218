import ArgumentParser
import Glibc
import Inspection
import Stage2Sim
import VirtWalkerDevice

/// Measures the memory of the tables of mapped guest memory. Each measurement needs a new process, because memory that
/// was free before does not count.
/// before does not count.
struct Tables: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "The bytes by which resident memory grows when guest memory is mapped by pages.")

  @Argument(help: "The size of the mapped guest memory.")
  var mib: UInt64

  func run() throws {
    var bench = TableBench()
    let before = residentBytes()
    _ = try bench.mapPages(mib << 20 / TableBench.page)
    print(
      "{\"grown\": \(residentBytes() - before), \"tables\": \(bench.pagesInUse * TableBench.page)}")
  }
}

/// Measures the memory of machines.
struct Machines: ParsableCommand {
  static let configuration = CommandConfiguration(
    abstract: "The bytes by which resident memory grows when machines are booted.")

  @Argument(help: "How many.")
  var count: Int

  @Flag(help: "Machines with trace, logs and counters.")
  var inspected = false

  func run() throws {
    // The first machine needs memory that the others share, such as the code.
    let first = try boot()
    let before = residentBytes()
    var machines: [Any] = []
    machines.reserveCapacity(count)
    var tables: UInt64 = 0
    for _ in 0..<count {
      let (machine, pages) = try boot()
      machines.append(machine)
      tables += UInt64(pages) * TableBench.page
    }
    print("{\"grown\": \(residentBytes() - before), \"tables\": \(tables)}")
    withExtendedLifetime((first, machines)) {}
  }

  private func boot() throws -> (machine: Any, tables: Int) {
    if inspected {
      let engine = try ModelEngine.bench()
      let device = InspectedDevice(
        engine, node: "bench", task: ("model-bench", 1), clock: now, cpuClock: now)
      return (device, engine.tablePages)
    }
    let machine = try VirtualMachine.bootedWithHideSeek()
    return (machine, machine.stage2.memory.pagesInUse)
  }
}

/// The resident size from the second number in /proc/self/statm, which is in pages.
private func residentBytes() -> Int {
  var resident = 0
  guard let file = fopen("/proc/self/statm", "r") else { return 0 }
  defer { fclose(file) }
  withUnsafeMutablePointer(to: &resident) { pointer in
    _ = withVaList([pointer]) { vfscanf(file, "%*d %ld", $0) }
  }
  return resident * sysconf(Int32(_SC_PAGESIZE))
}
