import Testing

@testable import CharacterDeviceServer

@Suite struct QuotaTests {
  /// Root and the owner always get a share, even if the other users take all of theirs.
  @Test func whoCanHaveHowMuch() {
    var quota = Quota(80, owner: 1000)
    func take(_ user: UInt32) -> Int {
      var count = 0
      while count < 100, quota.take(1, for: user) { count += 1 }
      return count
    }
    let others = (1..<9).map { take($0) }
    #expect(others == [10, 10, 10, 10, 10, 10, 0, 0])
    #expect(take(1000) == 10)
    #expect(take(0) == 10)
    quota.giveBack(10, of: 3)
    quota.giveBack(10, of: 0)
    let isTooMuch = !quota.take(11, for: 8)
    #expect(isTooMuch)
    #expect(take(8) == 10)
    #expect(take(3) == 0)
  }

  @Test func theOwnerAloneCanHaveMost() {
    var quota = Quota(80, owner: 1000)
    let wanted: [(amount: Int, user: UInt32)] = [(70, 1000), (1, 1000), (1, 1), (10, 0), (1, 0)]
    let had = wanted.map { quota.take($0.amount, for: $0.user) }
    #expect(had == [true, false, false, true, false])
  }

  /// A user who has used some time waits eight times as long. Other users do not wait.
  @Test func timeIsPaidFor() {
    var pace = Pace()
    let second: UInt64 = 1_000_000_000
    #expect(pace.allows(1, at: 0))
    pace.charge(1, from: 0, to: second)
    #expect(!pace.allows(1, at: second) && pace.allows(2, at: second))
    #expect(!pace.allows(1, at: 7 * second) && pace.allows(1, at: 8 * second))
    // A text that costs almost no time is never delayed.
    for time in stride(from: 100 * second, to: 101 * second, by: 100_000) {
      #expect(pace.allows(3, at: time))
      pace.charge(3, from: time, to: time + 10_000)
    }
  }
}
