BEGIN TRANSACTION;
CREATE TABLE answers (
	id INTEGER NOT NULL, 
	site VARCHAR(64) NOT NULL, 
	sample BIGINT NOT NULL, 
	node VARCHAR(64) NOT NULL, 
	exit VARCHAR(16) NOT NULL, 
	label INTEGER NOT NULL, 
	truth INTEGER, 
	correct SMALLINT, 
	probabilities TEXT NOT NULL, 
	eta DOUBLE NOT NULL, 
	members TEXT NOT NULL, 
	missing TEXT NOT NULL, 
	members_count INTEGER NOT NULL, 
	quality VARCHAR(16) NOT NULL, 
	expected_accuracy DOUBLE, 
	bundle VARCHAR(16) NOT NULL, 
	captured_at_s DOUBLE NOT NULL, 
	answered_at_s DOUBLE NOT NULL, 
	first_answered_at_s DOUBLE NOT NULL, 
	latency_s DOUBLE NOT NULL, 
	late BOOLEAN NOT NULL, 
	payload_bytes BIGINT NOT NULL, 
	wire_bytes BIGINT NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (site, sample)
);
INSERT INTO "answers" VALUES(1,'shop',0,'cam1','device',0,NULL,NULL,'[0.1,0.2,0.7]',0.25,'[]','["cam0","cam1","cam2"]',0,'degraded',NULL,'b1',1700000000.0,-1700000000.25,-1700000000.25,-0.2,1,0,0);
INSERT INTO "answers" VALUES(2,'home',1,'edge','local',1,-1,NULL,'[0.1,0.2,0.7]',0.25,'["cam0"]','["cam1","cam2"]',1,'degraded',0.5,'b1',1700000037.0,1700000037.25,1700000037.25,0.004,0,80,300);
INSERT INTO "answers" VALUES(3,'home',2,'edge','edge',2,0,0,'[0.1,0.2,0.7]',0.25,'["cam0","cam1"]','["cam2"]',2,'degraded',0.97,'b1',1700000074.0,1700000074.25,1700000074.25,0.0042,0,160,600);
INSERT INTO "answers" VALUES(4,'shop',3,'edge','cloud',0,1,0,'[0.1,0.2,0.7]',0.25,'["cam0","cam1","cam2"]','[]',3,'full',1.5,'b1',1700000111.0,1700000111.25,1700000111.25,0.05,0,240,900);
INSERT INTO "answers" VALUES(5,'home',4,'edge','device',1,2,0,'[0.1,0.2,0.7]',0.25,'[]','["cam0","cam1","cam2"]',0,'degraded',NULL,'b1',1700000148.0,1700000148.25,1700000148.25,0.31,0,0,0);
INSERT INTO "answers" VALUES(6,'home',5,'cam1','local',2,NULL,NULL,'[0.1,0.2,0.7]',0.25,'["cam0"]','["cam1","cam2"]',1,'degraded',0.5,'b1',1700000185.0,1700000185.25,1700000185.25,2.0,0,9007199254740992,300);
INSERT INTO "answers" VALUES(7,'shop',6,'edge','edge',0,-1,NULL,'[0.1,0.2,0.7]',0.25,'["cam0","cam1"]','["cam2"]',2,'degraded',0.97,'b1',1700000222.0,-1699999778.25,-1699999778.25,45.0,0,160,600);
INSERT INTO "answers" VALUES(8,'home',7,'edge','cloud',1,0,0,'[0.1,0.2,0.7]',0.25,'["cam0","cam1","cam2"]','[]',3,'full',NULL,'b1',1700000259.0,1700000259.25,1700000259.25,9999.0,0,240,900);
INSERT INTO "answers" VALUES(9,'home',8,'edge','device',2,1,0,'[0.1,0.2,0.7]',0.25,'[]','["cam0","cam1","cam2"]',0,'degraded',NULL,'b1',1700000296.0,1700000296.25,1700000296.25,-0.2,0,0,0);
INSERT INTO "answers" VALUES(10,'shop',9,'edge','local',0,2,0,'[0.1,0.2,0.7]',0.25,'["cam0"]','["cam1","cam2"]',1,'degraded',0.5,'b1',1700000333.0,1700000333.25,1700000333.25,0.004,1,80,300);
INSERT INTO "answers" VALUES(11,'home',10,'cam1','edge',1,NULL,NULL,'[0.1,0.2,0.7]',0.25,'["cam0","cam1"]','["cam2"]',2,'degraded',0.97,'b1',1700000370.0,1700000370.25,1700000370.25,0.0042,0,160,600);
INSERT INTO "answers" VALUES(12,'home',11,'edge','cloud',2,-1,NULL,'[0.1,0.2,0.7]',0.25,'["cam0","cam1","cam2"]','[]',3,'full',1.5,'b1',1700000407.0,1700000407.25,1700000407.25,0.05,0,240,900);
INSERT INTO "answers" VALUES(13,'shop',12,'edge','device',0,0,1,'[0.1,0.2,0.7]',0.25,'[]','["cam0","cam1","cam2"]',0,'degraded',NULL,'b1',1700000444.0,-1699999556.25,-1699999556.25,0.31,0,0,0);
INSERT INTO "answers" VALUES(14,'home',13,'edge','local',1,1,1,'[0.1,0.2,0.7]',0.25,'["cam0"]','["cam1","cam2"]',1,'degraded',0.5,'b1',1700000481.0,1700000481.25,1700000481.25,2.0,0,80,300);
INSERT INTO "answers" VALUES(15,'home',14,'edge','edge',2,2,1,'[0.1,0.2,0.7]',0.25,'["cam0","cam1"]','["cam2"]',2,'degraded',NULL,'b1',1700000518.0,1700000518.25,1700000518.25,45.0,0,160,600);
INSERT INTO "answers" VALUES(16,'shop',15,'cam1','cloud',0,NULL,NULL,'[0.1,0.2,0.7]',0.25,'["cam0","cam1","cam2"]','[]',3,'full',1.5,'b1',1700000555.0,1700000555.25,1700000555.25,9999.0,0,240,900);
INSERT INTO "answers" VALUES(17,'home',16,'edge','device',1,-1,NULL,'[0.1,0.2,0.7]',0.25,'[]','["cam0","cam1","cam2"]',0,'degraded',NULL,'b1',1700000592.0,1700000592.25,1700000592.25,-0.2,0,0,0);
INSERT INTO "answers" VALUES(18,'home',17,'edge','local',2,0,0,'[0.1,0.2,0.7]',0.25,'["cam0"]','["cam1","cam2"]',1,'degraded',0.5,'b1',1700000629.0,1700000629.25,1700000629.25,0.004,0,80,300);
INSERT INTO "answers" VALUES(19,'shop',18,'edge','edge',0,1,0,'[0.1,0.2,0.7]',0.25,'["cam0","cam1"]','["cam2"]',2,'degraded',0.97,'b1',1700000666.0,-1699999334.25,-1699999334.25,0.0042,1,160,600);
INSERT INTO "answers" VALUES(20,'home',19,'edge','cloud',1,2,0,'[0.1,0.2,0.7]',0.25,'["cam0","cam1","cam2"]','[]',3,'full',1.5,'b1',1700000703.0,1700000703.25,1700000703.25,0.05,0,240,900);
INSERT INTO "answers" VALUES(21,'home',20,'cam1','device',2,NULL,NULL,'[0.1,0.2,0.7]',0.25,'[]','["cam0","cam1","cam2"]',0,'degraded',NULL,'b1',1700000740.0,1700000740.25,1700000740.25,0.31,0,0,0);
INSERT INTO "answers" VALUES(22,'shop',21,'edge','local',0,-1,NULL,'[0.1,0.2,0.7]',0.25,'["cam0"]','["cam1","cam2"]',1,'degraded',NULL,'b1',1700000777.0,1700000777.25,1700000777.25,2.0,0,80,300);
INSERT INTO "answers" VALUES(23,'home',22,'edge','edge',1,0,0,'[0.1,0.2,0.7]',0.25,'["cam0","cam1"]','["cam2"]',2,'degraded',0.97,'b1',1700000814.0,1700000814.25,1700000814.25,45.0,0,160,600);
INSERT INTO "answers" VALUES(24,'home',23,'edge','cloud',2,1,0,'[0.1,0.2,0.7]',0.25,'["cam0","cam1","cam2"]','[]',3,'full',1.5,'b1',1700000851.0,1700000851.25,1700000851.25,9999.0,0,240,900);
CREATE TABLE events (
	id INTEGER NOT NULL, 
	at_s DOUBLE NOT NULL, 
	site VARCHAR(64) NOT NULL, 
	node VARCHAR(64) NOT NULL, 
	what TEXT NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "events" VALUES(1,1700000000.0,'home','cam1','joined');
INSERT INTO "events" VALUES(2,1700000050.0,'home','cam1','died');
CREATE TABLE totals (
	site VARCHAR(64) NOT NULL, 
	exit VARCHAR(16) NOT NULL, 
	quality VARCHAR(16) NOT NULL, 
	answered DOUBLE NOT NULL, 
	known DOUBLE NOT NULL, 
	correct DOUBLE NOT NULL, 
	late DOUBLE NOT NULL, 
	expected DOUBLE NOT NULL, 
	expected_accuracy DOUBLE NOT NULL, 
	members DOUBLE NOT NULL, 
	payload_bytes DOUBLE NOT NULL, 
	wire_bytes DOUBLE NOT NULL, 
	PRIMARY KEY (site, exit, quality)
);
INSERT INTO "totals" VALUES('home','cloud','full',4.0,3.0,0.0,0.0,3.0,3.0,12.0,960.0,3600.0);
INSERT INTO "totals" VALUES('home','device','degraded',4.0,2.0,0.0,0.0,0.0,0.0,0.0,0.0,0.0);
INSERT INTO "totals" VALUES('home','edge','degraded',4.0,3.0,1.0,0.0,3.0,2.91,8.0,640.0,2400.0);
INSERT INTO "totals" VALUES('home','local','degraded',4.0,2.0,1.0,0.0,4.0,2.0,4.0,2147483888.0,1200.0);
INSERT INTO "totals" VALUES('shop','cloud','full',2.0,1.0,0.0,0.0,2.0,2.0,6.0,480.0,1800.0);
INSERT INTO "totals" VALUES('shop','device','degraded',2.0,1.0,1.0,1.0,0.0,0.0,0.0,0.0,0.0);
INSERT INTO "totals" VALUES('shop','edge','degraded',2.0,1.0,0.0,1.0,2.0,1.94,4.0,320.0,1200.0);
INSERT INTO "totals" VALUES('shop','local','degraded',2.0,1.0,0.0,1.0,1.0,0.5,2.0,160.0,600.0);
CREATE INDEX answers_newest_of_site ON answers (site, id);
COMMIT;
